#include "torch_pickle.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <unordered_set>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

#include <outrider/formats/detail/bits.hpp>

// Opcodes: Python's Lib/pickletools.py. What they build: torch/serialization.py and torch/_utils.py.
namespace outrider::detail {
namespace {

constexpr std::size_t kMaxPickle = std::size_t{8} << 20;  // some 200 bytes a tensor: far more than a file has
constexpr std::size_t kMaxDimensions = 16;
constexpr std::size_t kMaxGlobal = 200;  // characters of a module or a name

enum class Kind : std::uint8_t { none, boolean, integer, text, tuple, dict, storage_type, function, storage, tensor };

constexpr std::array<const char*, 10> kKindNames = {"None",   "a boolean",      "an integer", "a text",    "a tuple",
                                                    "a dict", "a storage type", "a function", "a storage", "a tensor"};

/// A number (boolean, integer, SafeDtype, Function) or a place in the machine's lists: never more than two words, so
/// that no pickle makes values grow by referring to them. Nothing walks through nested values.
struct Value {
    Kind kind = Kind::none;
    std::int64_t number = 0;
};

enum class Function : std::int64_t { ordered_dict, rebuild_tensor, rebuild_parameter };

struct Global {
    std::string_view module, name;
    Value value;
};

constexpr Value storage_type(SafeDtype dtype) { return {Kind::storage_type, static_cast<std::int64_t>(dtype)}; }
constexpr Value function(Function which) { return {Kind::function, static_cast<std::int64_t>(which)}; }

constexpr std::string_view kUtils = "torch._utils";
constexpr std::array<Global, 13> kGlobals = {{{"collections", "OrderedDict", function(Function::ordered_dict)},
                                              {kUtils, "_rebuild_tensor_v2", function(Function::rebuild_tensor)},
                                              {kUtils, "_rebuild_parameter", function(Function::rebuild_parameter)},
                                              {"torch", "DoubleStorage", storage_type(SafeDtype::f64)},
                                              {"torch", "FloatStorage", storage_type(SafeDtype::f32)},
                                              {"torch", "HalfStorage", storage_type(SafeDtype::f16)},
                                              {"torch", "BFloat16Storage", storage_type(SafeDtype::bf16)},
                                              {"torch", "LongStorage", storage_type(SafeDtype::i64)},
                                              {"torch", "IntStorage", storage_type(SafeDtype::i32)},
                                              {"torch", "ShortStorage", storage_type(SafeDtype::i16)},
                                              {"torch", "CharStorage", storage_type(SafeDtype::i8)},
                                              {"torch", "ByteStorage", storage_type(SafeDtype::u8)},
                                              {"torch", "BoolStorage", storage_type(SafeDtype::boolean)}}};

/// Names of opcodes that a file which is no state_dict tends to have, for messages.
std::string_view opcode_name(std::uint8_t opcode) {
    constexpr std::array<std::pair<std::uint8_t, std::string_view>, 15> kNames = {{{'P', "PERSID"},
                                                                                   {'i', "INST"},
                                                                                   {'o', "OBJ"},
                                                                                   {0x81, "NEWOBJ"},
                                                                                   {0x92, "NEWOBJ_EX"},
                                                                                   {0x93, "STACK_GLOBAL"},
                                                                                   {0x95, "FRAME"},
                                                                                   {0x94, "MEMOIZE"},
                                                                                   {0x8C, "SHORT_BINUNICODE"},
                                                                                   {']', "EMPTY_LIST"},
                                                                                   {'a', "APPEND"},
                                                                                   {'e', "APPENDS"},
                                                                                   {'G', "BINFLOAT"},
                                                                                   {'U', "SHORT_BINSTRING"},
                                                                                   {'C', "SHORT_BINBYTES"}}};
    const auto found = std::ranges::find(kNames, opcode, &std::pair<std::uint8_t, std::string_view>::first);
    return found == kNames.end() ? "unknown or unused here" : found->second;
}

struct Storage {
    SafeDtype dtype = SafeDtype::f32;
    std::string_view key;
    std::int64_t elements = 0;
};

class Unpickler {
public:
    Unpickler(std::span<const std::byte> pickle, const std::string& name) : pickle_(pickle), name_(name) {}

    std::vector<PickledTensor> run() {
        require(pickle_.size() <= kMaxPickle, ErrorKind::damaged_file,
                "{}: its pickle has {} bytes, expected at most {}", name_, pickle_.size(), kMaxPickle);
        while (step()) {
        }
        return named_tensors(pop());
    }

private:
    /// One opcode; false at STOP.
    bool step() {
        opcode_at_ = at_;
        const auto opcode = take<std::uint8_t>();
        switch (opcode) {
            case 0x80: check(take<std::uint8_t>() == 2, "expected protocol 2"); break;
            case 'c': push_global(); break;
            case 'q': put(take<std::uint8_t>()); break;
            case 'r': put(take<std::uint32_t>()); break;
            case 'h': get(take<std::uint8_t>()); break;
            case 'j': get(take<std::uint32_t>()); break;
            case 'N': push({}); break;
            case 0x88: push({Kind::boolean, 1}); break;
            case 0x89: push({Kind::boolean, 0}); break;
            case 'K': push({Kind::integer, take<std::uint8_t>()}); break;
            case 'M': push({Kind::integer, take<std::uint16_t>()}); break;
            case 'J': push({Kind::integer, take<std::int32_t>()}); break;
            case 0x8A: push_long(); break;
            case 'X': push_text(); break;
            case '(': marks_.push_back(stack_.size()); break;
            case ')': push_tuple(0); break;
            case 0x85: push_tuple(1); break;
            case 0x86: push_tuple(2); break;
            case 0x87: push_tuple(3); break;
            case 't': push_tuple(pop_mark()); break;
            case '}': push_dict(); break;
            case 's': set_items(2); break;
            case 'u': set_items(pop_mark()); break;
            case 'Q': push_storage(); break;
            case 'R': reduce(); break;
            case 'b': build(); break;
            case '.':
                check(marks_.empty() && stack_.size() == 1 && at_ == pickle_.size(), "it ends with open values");
                return false;
            default: refuse(opcode);
        }
        return true;
    }

    [[noreturn]] void refuse(std::uint8_t opcode) const {
        fail(ErrorKind::not_supported,
             "{}: opcode {} ({}) at byte {} of its pickle is not allowed; expected a state_dict: tensors "
             "by name. Save module.state_dict() with torch.save and its default protocol",
             name_, fmt::format("0x{:02X}", opcode), opcode_name(opcode), opcode_at_);
    }

    void check(bool condition, const char* what) const {
        require(condition, ErrorKind::damaged_file, "{}: its pickle is not that of a state_dict: {}, at byte {}", name_,
                what, opcode_at_);
    }

    std::string_view take_bytes(std::size_t size) {
        check(size <= pickle_.size() - at_, "it is cut short");
        const auto part = pickle_.subspan(at_, size);
        at_ += size;
        return {reinterpret_cast<const char*>(part.data()), size};
    }

    template <typename T>
    T take() {
        return load<T>(take_bytes(sizeof(T)).data());
    }

    std::string_view take_line() {
        const std::size_t start = at_;
        while (take<char>() != '\n') check(at_ - start <= kMaxGlobal, "the name of a global is too long");
        return {reinterpret_cast<const char*>(pickle_.data()) + start, at_ - 1 - start};
    }

    void push(Value value) { stack_.push_back(value); }

    /// Values above the last mark.
    [[nodiscard]] std::size_t open_values() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

    Value pop() {
        check(open_values() > 0, "a value is missing");
        const Value value = stack_.back();
        stack_.pop_back();
        return value;
    }

    Value pop(Kind kind, const char* what) {
        const Value value = pop();
        check(value.kind == kind, what);
        return value;
    }

    /// Closes the last mark; the number of values that were above it.
    std::size_t pop_mark() {
        check(!marks_.empty(), "a mark is missing");
        const std::size_t count = open_values();
        marks_.pop_back();
        return count;
    }

    void put(std::uint32_t slot) {
        check(open_values() > 0, "a value is missing");
        memo_[slot] = stack_.back();
    }

    void get(std::uint32_t slot) {
        const auto found = memo_.find(slot);
        check(found != memo_.end(), "it refers to a value that it has not stored");
        push(found->second);
    }

    void push_global() {
        const std::string_view module = take_line(), name = take_line();
        for (const Global& global : kGlobals) {
            if (global.module == module && global.name == name) return push(global.value);
        }
        fail(ErrorKind::not_supported,
             "{}: the global {}.{} is not allowed; expected a state_dict: tensors of dtype float64, float32, float16, "
             "bfloat16, int64, int32, int16, int8, uint8 or bool by name",
             name_, to_valid_utf8(module), to_valid_utf8(name));
    }

    /// Two's complement, little-endian, of at most 8 bytes.
    void push_long() {
        const std::string_view digits = take_bytes(take<std::uint8_t>());
        check(digits.size() <= 8, "an integer has more than 64 bits");
        std::uint64_t value = !digits.empty() && (digits.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
        for (std::size_t i = digits.size(); i-- > 0;) value = value << 8 | static_cast<std::uint8_t>(digits[i]);
        push({Kind::integer, static_cast<std::int64_t>(value)});
    }

    void push_text() {
        const std::string_view text = take_bytes(take<std::uint32_t>());
        check(is_valid_utf8(text), "a text is not UTF-8");
        push({Kind::text, static_cast<std::int64_t>(texts_.size())});
        texts_.push_back(text);
    }

    void push_tuple(std::size_t count) {
        check(open_values() >= count, "a value is missing");
        const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
        tuples_.emplace_back(from, stack_.end());
        stack_.erase(from, stack_.end());
        push({Kind::tuple, static_cast<std::int64_t>(tuples_.size()) - 1});
    }

    void push_dict() {
        push({Kind::dict, static_cast<std::int64_t>(dicts_.size())});
        dicts_.emplace_back();
    }

    void set_items(std::size_t count) {
        check(count % 2 == 0 && open_values() > count, "a key or value is missing");
        const std::size_t first = stack_.size() - count;
        check(stack_[first - 1].kind == Kind::dict, "items are set in something other than a dict");
        auto& dict = dicts_[index(stack_[first - 1])];
        for (std::size_t i = first; i < stack_.size(); i += 2) dict.emplace_back(stack_[i], stack_[i + 1]);
        stack_.resize(first);
    }

    /// ("storage", type, key, location, elements)
    void push_storage() {
        const auto& id = tuples_[index(pop(Kind::tuple, "a persistent id is no tuple"))];
        check(id.size() == 5 && id[0].kind == Kind::text && texts_[index(id[0])] == "storage" &&
                  id[1].kind == Kind::storage_type && id[2].kind == Kind::text && id[3].kind == Kind::text &&
                  id[4].kind == Kind::integer && id[4].number >= 0,
              "a persistent id is no storage");
        storages_.push_back({static_cast<SafeDtype>(id[1].number), texts_[index(id[2])], id[4].number});
        push({Kind::storage, static_cast<std::int64_t>(storages_.size()) - 1});
    }

    void reduce() {
        const std::vector<Value>& arguments = tuples_[index(pop(Kind::tuple, "arguments are no tuple"))];
        const Value called = pop(Kind::function, "something other than a function is called");
        switch (static_cast<Function>(called.number)) {
            case Function::ordered_dict: check(arguments.empty(), "an OrderedDict has arguments"); return push_dict();
            case Function::rebuild_tensor: return push_tensor(arguments);
            case Function::rebuild_parameter:
                check(arguments.size() == 3 && arguments[0].kind == Kind::tensor &&
                          arguments[1].kind == Kind::boolean && is_empty_dict(arguments[2]),
                      "a parameter is not (tensor, requires_grad, no hooks)");
                return push(arguments[0]);
        }
    }

    [[nodiscard]] bool is_empty_dict(Value value) const {
        return value.kind == Kind::dict && dicts_[index(value)].empty();
    }

    void push_tensor(const std::vector<Value>& arguments) {
        check(arguments.size() == 6 && arguments[0].kind == Kind::storage && arguments[1].kind == Kind::integer &&
                  arguments[1].number >= 0 && arguments[4].kind == Kind::boolean && is_empty_dict(arguments[5]),
              "a tensor is not (storage, offset, sizes, strides, requires_grad, no hooks)");
        const Storage& storage = storages_[index(arguments[0])];
        PickledTensor tensor;
        tensor.storage = storage.key, tensor.dtype = storage.dtype, tensor.storage_elements = storage.elements;
        tensor.offset = arguments[1].number;
        tensor.shape = integers(arguments[2]), tensor.stride = integers(arguments[3]);
        check(tensor.shape.size() == tensor.stride.size(), "a tensor has another number of sizes than of strides");
        tensors_.push_back(std::move(tensor));
        push({Kind::tensor, static_cast<std::int64_t>(tensors_.size()) - 1});
    }

    [[nodiscard]] std::vector<std::int64_t> integers(Value value) const {
        check(value.kind == Kind::tuple && tuples_[index(value)].size() <= kMaxDimensions,
              "sizes and strides are no tuples of at most 16 integers");
        std::vector<std::int64_t> result;
        for (const Value number : tuples_[index(value)]) {
            check(number.kind == Kind::integer && number.number >= 0, "a size or stride is no integer from 0");
            result.push_back(number.number);
        }
        return result;
    }

    /// The attributes of a state_dict, which say nothing of its tensors: `_metadata` alone.
    void build() {
        const Value state = pop(Kind::dict, "the state of an object is no dict");
        for (const auto& [key, value] : dicts_[index(state)]) {
            check(key.kind == Kind::text && texts_[index(key)] == "_metadata", "it sets an attribute beside _metadata");
        }
        check(open_values() > 0 && stack_.back().kind == Kind::dict, "attributes of something other than a dict");
    }

    [[nodiscard]] std::vector<PickledTensor> named_tensors(Value top) const {
        require(top.kind == Kind::dict, ErrorKind::damaged_file,
                "{}: expected a dict of tensors by name, got {}; save module.state_dict()", name_,
                kKindNames[static_cast<std::size_t>(top.kind)]);
        std::vector<PickledTensor> result;
        std::unordered_set<std::string_view> seen;
        for (const auto& [key, value] : dicts_[index(top)]) {
            require(key.kind == Kind::text, ErrorKind::damaged_file, "{}: expected texts as names of tensors, got {}",
                    name_, kKindNames[static_cast<std::size_t>(key.kind)]);
            const std::string_view name = texts_[index(key)];
            require(value.kind == Kind::tensor, ErrorKind::damaged_file,
                    "{}: \"{}\" is {}, expected a tensor; save the state_dict alone", name_, name,
                    kKindNames[static_cast<std::size_t>(value.kind)]);
            require(seen.insert(name).second, ErrorKind::damaged_file, "{}: tensor {} occurs twice", name_, name);
            result.push_back(tensors_[index(value)]);
            result.back().name = name;
        }
        return result;
    }

    static std::size_t index(Value value) { return static_cast<std::size_t>(value.number); }

    std::span<const std::byte> pickle_;
    const std::string& name_;
    std::size_t at_ = 0;
    std::size_t opcode_at_ = 0;
    std::vector<Value> stack_;
    std::vector<std::size_t> marks_;  // sizes of stack_
    std::map<std::uint32_t, Value> memo_;
    std::vector<std::string_view> texts_;
    std::vector<std::vector<Value>> tuples_;
    std::vector<std::vector<std::pair<Value, Value>>> dicts_;
    std::vector<Storage> storages_;
    std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> read_state_dict(std::span<const std::byte> pickle, const std::string& name) {
    return Unpickler(pickle, name).run();
}

}  // namespace outrider::detail
