#include <outrider/io/gguf.hpp>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/core/utf8_stream.hpp>

#include "bits.hpp"

// Format: ggml's docs/gguf.md.
namespace outrider {
namespace {

using detail::load;

enum class ValueType : std::uint32_t {
    uint8 = 0, int8 = 1, uint16 = 2, int16 = 3, uint32 = 4, int32 = 5, float32 = 6, boolean = 7, string = 8, array = 9,
    uint64 = 10, int64 = 11, float64 = 12
};

constexpr std::uint64_t kMaxDimensions = 4;  // GGML_MAX_DIMS

/// Bytes of one value of a fixed size; 0 for strings, arrays and unknown types.
std::size_t fixed_size(ValueType type) {
    switch (type) {
        case ValueType::uint8: case ValueType::int8: case ValueType::boolean: return 1;
        case ValueType::uint16: case ValueType::int16: return 2;
        case ValueType::uint32: case ValueType::int32: case ValueType::float32: return 4;
        case ValueType::uint64: case ValueType::int64: case ValueType::float64: return 8;
        default: return 0;
    }
}

const char* kind(ValueType type) {
    switch (type) {
        case ValueType::float32: case ValueType::float64: return "a float";
        case ValueType::boolean: return "a boolean";
        case ValueType::string: return "a string";
        case ValueType::array: return "an array";
        default: return "an integer";
    }
}

bool is_integer(ValueType type) {
    return fixed_size(type) > 0 && type != ValueType::float32 && type != ValueType::float64 &&
           type != ValueType::boolean;
}

/// Walks the bytes of the header; nothing is read beyond the end.
class Cursor {
public:
    Cursor(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

    template <typename T>
    T read(const char* what) {
        return load<T>(take(sizeof(T), what));
    }

    std::string_view read_string(const char* what) {
        const auto length = read<std::uint64_t>(what);
        return {reinterpret_cast<const char*>(take(length, what)), static_cast<std::size_t>(length)};
    }

    const std::byte* take(std::uint64_t size, const char* what) {
        require(size <= left(), "{}: the file ends inside {}: expected {} bytes at offset {}, got {}; is the download "
                "complete?", name_, what, size, position_, left());
        const std::byte* start = bytes_.data() + position_;
        position_ += static_cast<std::size_t>(size);
        return start;
    }

    [[nodiscard]] std::uint64_t left() const { return bytes_.size() - position_; }
    [[nodiscard]] std::size_t position() const { return position_; }

private:
    std::span<const std::byte> bytes_;
    const std::string& name_;
    std::size_t position_ = 0;
};

/// Where a metadata value lies. For arrays: type of the elements, their number, the first one.
struct Value {
    ValueType type = ValueType::uint8;
    bool array = false;
    std::uint64_t count = 1;
    const std::byte* start = nullptr;
};

std::string_view string_at(const std::byte* p) {
    return {reinterpret_cast<const char*>(p + 8), static_cast<std::size_t>(load<std::uint64_t>(p))};
}

double number_at(ValueType type, const std::byte* p) {
    switch (type) {
        case ValueType::uint8: return load<std::uint8_t>(p);
        case ValueType::int8: return load<std::int8_t>(p);
        case ValueType::uint16: return load<std::uint16_t>(p);
        case ValueType::int16: return load<std::int16_t>(p);
        case ValueType::uint32: return load<std::uint32_t>(p);
        case ValueType::int32: return load<std::int32_t>(p);
        case ValueType::float32: return load<float>(p);
        case ValueType::uint64: return static_cast<double>(load<std::uint64_t>(p));
        case ValueType::int64: return static_cast<double>(load<std::int64_t>(p));
        default: return load<double>(p);
    }
}

std::int64_t integer_at(ValueType type, const std::byte* p, std::string_view key) {
    switch (type) {
        case ValueType::uint8: return load<std::uint8_t>(p);
        case ValueType::int8: return load<std::int8_t>(p);
        case ValueType::uint16: return load<std::uint16_t>(p);
        case ValueType::int16: return load<std::int16_t>(p);
        case ValueType::uint32: return load<std::uint32_t>(p);
        case ValueType::int32: return load<std::int32_t>(p);
        case ValueType::int64: return load<std::int64_t>(p);
        default: break;
    }
    const auto value = load<std::uint64_t>(p);
    require(value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()),
            "GGUF key {}: {} does not fit in 64 bits with a sign", key, value);
    return static_cast<std::int64_t>(value);
}

}  // namespace

struct GgufFile::Contents {
    SharedBytes bytes;
    std::string name;
    std::uint32_t version = 0;
    std::map<std::string, Value, std::less<>> values;
    std::vector<GgufTensor> tensors;
    std::unordered_map<std::string_view, std::size_t> index;  // views of the tensors' own names
    struct Place { std::uint64_t offset, size; };

    void parse();
    void check_head(Cursor& cursor);
    void read_value(Cursor& cursor);
    Place read_tensor(Cursor& cursor);
    void place_tensors(std::uint64_t start, std::uint64_t alignment, const std::vector<Place>& places);
    const Value& value(std::string_view key, const char* expected, bool array) const;
};

void GgufFile::Contents::check_head(Cursor& cursor) {
    require(cursor.left() >= 4 && std::memcmp(cursor.take(4, "the magic number"), "GGUF", 4) == 0,
            "{}: expected a GGUF file, but it does not begin with \"GGUF\"", name);
    version = cursor.read<std::uint32_t>("the version");
    require((version & 0xFFFFu) != 0, "{}: a big-endian GGUF file; expected a little-endian one", name);
    require(version == 2 || version == 3, "{}: GGUF version {}; expected 2 or 3", name, version);
}

void GgufFile::Contents::parse() {
    Cursor cursor(bytes.span(), name);
    check_head(cursor);
    const auto tensor_count = cursor.read<std::uint64_t>("the number of tensors");
    const auto value_count = cursor.read<std::uint64_t>("the number of metadata values");
    // The least sizes of an entry bound both counts by the size of the file, before anything is reserved for them.
    require(value_count <= cursor.left() / 13, "{}: {} metadata values cannot be in {} bytes", name, value_count,
            cursor.left());
    require(tensor_count <= cursor.left() / 24, "{}: {} tensors cannot be in {} bytes", name, tensor_count,
            cursor.left());
    for (std::uint64_t i = 0; i < value_count; ++i) read_value(cursor);
    std::uint64_t alignment = 32;
    if (values.contains("general.alignment")) {
        const Value& given = value("general.alignment", "an integer", false);
        require(is_integer(given.type), "{}: general.alignment is {}; expected an integer", name, kind(given.type));
        alignment = static_cast<std::uint64_t>(integer_at(given.type, given.start, "general.alignment"));
    }
    require(alignment > 0 && alignment <= (1u << 20) && std::has_single_bit(alignment),
            "{}: general.alignment is {}; expected a power of two", name, alignment);
    tensors.reserve(static_cast<std::size_t>(tensor_count));
    std::vector<Place> places;
    for (std::uint64_t i = 0; i < tensor_count; ++i) places.push_back(read_tensor(cursor));
    const std::uint64_t start = (cursor.position() + alignment - 1) / alignment * alignment;
    place_tensors(start, alignment, places);
}

void GgufFile::Contents::read_value(Cursor& cursor) {
    const std::string_view key = cursor.read_string("a metadata key");
    require(!key.empty() && is_valid_utf8(key), "{}: a metadata key is empty or not UTF-8: \"{}\"", name,
            to_valid_utf8(key));
    Value value;
    value.type = static_cast<ValueType>(cursor.read<std::uint32_t>("a metadata type"));
    if (value.type == ValueType::array) {
        value.array = true;
        value.type = static_cast<ValueType>(cursor.read<std::uint32_t>("an array's type"));
        value.count = cursor.read<std::uint64_t>("an array's length");
    }
    value.start = cursor.take(0, "a metadata value");
    const std::size_t size = fixed_size(value.type);
    if (size > 0) {
        require(value.count <= cursor.left() / size, "{}: key {}: {} values of {} bytes cannot be in the {} bytes left",
                name, key, value.count, size, cursor.left());
        cursor.take(value.count * size, "a metadata value");
    } else {
        require(value.type == ValueType::string, "{}: key {}: value type {} is unknown or a nested array", name, key,
                static_cast<std::uint32_t>(value.type));
        for (std::uint64_t i = 0; i < value.count; ++i) cursor.read_string("a string");
    }
    require(values.emplace(key, value).second, "{}: metadata key {} occurs twice", name, key);
}

GgufFile::Contents::Place GgufFile::Contents::read_tensor(Cursor& cursor) {
    GgufTensor tensor;
    tensor.name = cursor.read_string("a tensor's name");
    require(!tensor.name.empty() && is_valid_utf8(tensor.name), "{}: a tensor's name is empty or not UTF-8: \"{}\"",
            name, to_valid_utf8(tensor.name));
    const auto dimensions = cursor.read<std::uint32_t>("a tensor's dimensions");
    require(dimensions <= kMaxDimensions, "{}: tensor {} has {} dimensions; expected at most {}", name, tensor.name,
            dimensions, kMaxDimensions);
    std::uint64_t elements = 1;
    constexpr std::uint64_t kMost = std::uint64_t{1} << 48;  // no product below overflows
    for (std::uint32_t i = 0; i < dimensions; ++i) {
        const auto size = cursor.read<std::uint64_t>("a tensor's shape");
        require(size > 0 && size <= kMost / elements, "{}: tensor {}: dimension {} of {} is impossible", name,
                tensor.name, i, size);
        elements *= size;
        tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(size));  // stored fastest first
    }
    tensor.type = static_cast<GgmlType>(cursor.read<std::uint32_t>("a tensor's type"));
    const GgmlBlock block = ggml_block(tensor.type);
    require(block.elements > 0, "{}: tensor {} is of unknown {}", name, tensor.name, ggml_name(tensor.type));
    const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    require(row % block.elements == 0, "{}: tensor {}: rows of {} are not whole blocks of {} ({})", name, tensor.name,
            row, block.elements, ggml_name(tensor.type));
    const auto offset = cursor.read<std::uint64_t>("a tensor's offset");
    tensors.push_back(std::move(tensor));
    return {offset, elements / static_cast<std::uint64_t>(block.elements) * static_cast<std::uint64_t>(block.bytes)};
}

void GgufFile::Contents::place_tensors(std::uint64_t start, std::uint64_t alignment,
                                       const std::vector<Place>& places) {
    const std::uint64_t room = start <= bytes.size() ? bytes.size() - start : 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const auto [offset, size] = places[i];
        GgufTensor& tensor = tensors[i];
        require(offset % alignment == 0, "{}: tensor {} lies at offset {}, not a multiple of {}", name, tensor.name,
                offset, alignment);
        require(offset <= room && size <= room - offset, "{}: tensor {} ({} bytes at offset {}) reaches beyond the "
                "data ({} bytes); is the download complete?", name, tensor.name, size, offset, room);
        tensor.data = bytes.span().subspan(static_cast<std::size_t>(start + offset), static_cast<std::size_t>(size));
        require(index.emplace(tensor.name, i).second, "{}: tensor {} occurs twice", name, tensor.name);
    }
    std::vector<std::size_t> order(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return places[i].offset; });
    for (std::size_t i = 1; i < order.size(); ++i) {
        const Place before = places[order[i - 1]], after = places[order[i]];
        require(before.offset + before.size <= after.offset, "{}: tensors {} and {} overlap", name,
                tensors[order[i - 1]].name, tensors[order[i]].name);
    }
}

const Value& GgufFile::Contents::value(std::string_view key, const char* expected, bool array) const {
    const auto found = values.find(key);
    require(found != values.end(), "{}: metadata key {} is missing; expected {}{}", name, key,
            array ? "an array, each value " : "", expected);
    require(found->second.array == array, "{}: metadata key {} is {}; expected {}{}", name, key,
            found->second.array ? "an array" : kind(found->second.type), array ? "an array, each value " : "",
            expected);
    return found->second;
}

GgufFile GgufFile::open(const std::filesystem::path& path) { return parse(SharedBytes::map(path), path.string()); }

GgufFile GgufFile::parse(SharedBytes bytes, std::string name) {
    const auto contents = std::make_shared<Contents>();
    contents->bytes = std::move(bytes);
    contents->name = std::move(name);
    contents->parse();
    return GgufFile(contents);
}

bool GgufFile::has(std::string_view key) const { return contents_->values.contains(key); }

std::vector<std::string> GgufFile::keys() const {
    std::vector<std::string> result;
    for (const auto& [key, value] : contents_->values) result.push_back(key);
    return result;
}

bool GgufFile::is_array(std::string_view key) const {
    const auto found = contents_->values.find(key);
    return found != contents_->values.end() && found->second.array;
}

namespace {

void require_kind(bool fits, const std::string& name, std::string_view key, ValueType type, const char* expected) {
    require(fits, "{}: metadata key {} holds {}; expected {}", name, key, kind(type), expected);
}

/// Calls `read(pointer)` on each value of an array of fixed size.
template <typename T, typename Read>
std::vector<T> read_all(const Value& value, Read read) {
    std::vector<T> result;
    result.reserve(static_cast<std::size_t>(value.count));
    const std::size_t size = fixed_size(value.type);
    for (std::uint64_t i = 0; i < value.count; ++i) result.push_back(read(value.start + i * size));
    return result;
}

}  // namespace

std::string GgufFile::string(std::string_view key) const {
    const Value& value = contents_->value(key, "a string", false);
    require_kind(value.type == ValueType::string, name(), key, value.type, "a string");
    return std::string(string_at(value.start));
}

std::int64_t GgufFile::integer(std::string_view key) const {
    const Value& value = contents_->value(key, "an integer", false);
    require_kind(is_integer(value.type), name(), key, value.type, "an integer");
    return integer_at(value.type, value.start, key);
}

double GgufFile::number(std::string_view key) const {
    const Value& value = contents_->value(key, "a number", false);
    require_kind(fixed_size(value.type) > 0 && value.type != ValueType::boolean, name(), key, value.type, "a number");
    return number_at(value.type, value.start);
}

bool GgufFile::boolean(std::string_view key) const {
    const Value& value = contents_->value(key, "a boolean", false);
    require_kind(value.type == ValueType::boolean, name(), key, value.type, "a boolean");
    return load<std::uint8_t>(value.start) != 0;
}

std::vector<std::string> GgufFile::strings(std::string_view key) const {
    const Value& value = contents_->value(key, "a string", true);
    require_kind(value.type == ValueType::string, name(), key, value.type, "strings");
    std::vector<std::string> result;
    result.reserve(static_cast<std::size_t>(value.count));
    const std::byte* p = value.start;
    for (std::uint64_t i = 0; i < value.count; ++i) {
        result.emplace_back(string_at(p));
        p += 8 + result.back().size();
    }
    return result;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
    const Value& value = contents_->value(key, "an integer", true);
    require_kind(is_integer(value.type), name(), key, value.type, "integers");
    return read_all<std::int64_t>(value, [&](const std::byte* p) { return integer_at(value.type, p, key); });
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
    const Value& value = contents_->value(key, "a number", true);
    require_kind(fixed_size(value.type) > 0 && value.type != ValueType::boolean, name(), key, value.type, "numbers");
    return read_all<double>(value, [&](const std::byte* p) { return number_at(value.type, p); });
}

std::vector<bool> GgufFile::booleans(std::string_view key) const {
    const Value& value = contents_->value(key, "a boolean", true);
    require_kind(value.type == ValueType::boolean, name(), key, value.type, "booleans");
    return read_all<bool>(value, [](const std::byte* p) { return load<std::uint8_t>(p) != 0; });
}

std::optional<std::string> GgufFile::find_string(std::string_view key) const {
    return has(key) ? std::optional(string(key)) : std::nullopt;
}
std::optional<std::int64_t> GgufFile::find_integer(std::string_view key) const {
    return has(key) ? std::optional(integer(key)) : std::nullopt;
}
std::optional<double> GgufFile::find_number(std::string_view key) const {
    return has(key) ? std::optional(number(key)) : std::nullopt;
}
std::optional<bool> GgufFile::find_boolean(std::string_view key) const {
    return has(key) ? std::optional(boolean(key)) : std::nullopt;
}

const std::vector<GgufTensor>& GgufFile::tensors() const noexcept { return contents_->tensors; }

bool GgufFile::has_tensor(std::string_view name) const { return contents_->index.contains(name); }

const GgufTensor& GgufFile::tensor(std::string_view name) const {
    const auto found = contents_->index.find(name);
    if (found == contents_->index.end()) {
        const auto parts = has("split.count") && !is_array("split.count") ? number("split.count") : 0.0;
        fail("{}: tensor {} is missing{}", contents_->name, name,
             parts > 1 ? "; the file is one part of several: join them first (llama-gguf-split --merge)" : "");
    }
    return contents_->tensors[found->second];
}

std::uint32_t GgufFile::version() const noexcept { return contents_->version; }
void GgufFile::drop_pages(std::span<const std::byte> part) const noexcept { contents_->bytes.drop_pages(part); }
const std::string& GgufFile::name() const noexcept { return contents_->name; }

void dequantise(const GgufTensor& tensor, std::span<float> out) {
    require(can_dequantise(tensor.type), "tensor {} is of GGUF type {}, which cannot be read: convert the file to F16, "
            "Q8_0, Q4_K or another supported type", tensor.name, ggml_name(tensor.type));
    require(out.size() == static_cast<std::size_t>(tensor.elements()), "tensor {} has {} numbers; expected room for "
            "them, got {}", tensor.name, tensor.elements(), out.size());
    dequantise(tensor.type, tensor.data, out);
}

std::vector<float> to_floats(const GgufTensor& tensor) {
    std::vector<float> out(static_cast<std::size_t>(tensor.elements()));
    dequantise(tensor, out);
    return out;
}

}  // namespace outrider
