// The first half of a GGUF file: a walk over its bytes, and the metadata by key. Format: ggml's docs/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

#include <outrider/formats/detail/bits.hpp>

namespace outrider::detail {

/// Walks the bytes of the header; nothing is read beyond the end.
class GgufCursor {
public:
    GgufCursor(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

    template <typename T>
    T read(const char* what) {
        return load<T>(take(sizeof(T), what));
    }

    std::string_view read_string(const char* what) {
        const auto length = read<std::uint64_t>(what);
        return {reinterpret_cast<const char*>(take(length, what)), static_cast<std::size_t>(length)};
    }

    const std::byte* take(std::uint64_t size, const char* what) {
        require(size <= left(), ErrorKind::damaged_file,
                "{}: the file ends inside {}: expected {} bytes at offset {}, got {}; is the download "
                "complete?",
                name_, what, size, position_, left());
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

/// Metadata values by key, where they lie in the file. The getters are GgufFile's.
class GgufValues {
public:
    /// `name` stands in messages.
    explicit GgufValues(std::string name) : name_(std::move(name)) {}

    /// Reads the next key and walks over its value. Throws Error for what cannot be, and for a key that occurs twice.
    void read(GgufCursor& cursor);

    [[nodiscard]] bool has(std::string_view key) const { return values_.contains(key); }
    [[nodiscard]] std::vector<std::string> keys() const;
    [[nodiscard]] bool is_array(std::string_view key) const;

    [[nodiscard]] std::string string(std::string_view key) const;
    [[nodiscard]] std::int64_t integer(std::string_view key) const;
    [[nodiscard]] double number(std::string_view key) const;
    [[nodiscard]] bool boolean(std::string_view key) const;
    [[nodiscard]] std::vector<std::string> strings(std::string_view key) const;
    [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key) const;
    [[nodiscard]] std::vector<double> numbers(std::string_view key) const;
    [[nodiscard]] std::vector<bool> booleans(std::string_view key) const;

private:
    enum class Type : std::uint32_t {
        uint8 = 0,
        int8 = 1,
        uint16 = 2,
        int16 = 3,
        uint32 = 4,
        int32 = 5,
        float32 = 6,
        boolean = 7,
        string = 8,
        array = 9,
        uint64 = 10,
        int64 = 11,
        float64 = 12
    };
    /// For arrays: type of the elements, their number, the first one.
    struct Value {
        Type type = Type::uint8;
        bool array = false;
        std::uint64_t count = 1;
        const std::byte* start = nullptr;
    };

    /// Bytes of one value of a fixed size; 0 for strings, arrays and unknown types.
    [[nodiscard]] static std::size_t fixed_size(Type type);
    [[nodiscard]] static const char* kind(Type type);
    [[nodiscard]] static bool is_integer(Type type);
    [[nodiscard]] static bool is_string(Type type) { return type == Type::string; }
    [[nodiscard]] static bool is_boolean(Type type) { return type == Type::boolean; }
    [[nodiscard]] static bool is_number(Type type) { return fixed_size(type) > 0 && type != Type::boolean; }
    [[nodiscard]] static double number_at(Type type, const std::byte* p);
    [[nodiscard]] static std::int64_t integer_at(Type type, const std::byte* p, std::string_view key);

    /// The value of `key` if it is an array or is none, as asked, and its type is of the kind that `fits` says.
    [[nodiscard]] const Value& value(std::string_view key, const char* expected, bool array, bool (*fits)(Type)) const;
    template <typename T, typename Read>
    [[nodiscard]] static std::vector<T> read_all(const Value& value, Read read);

    std::string name_;
    std::map<std::string, Value, std::less<>> values_;
};

}  // namespace outrider::detail
