#include "gguf_values.hpp"

#include <limits>

#include <outrider/core/detail/utf8_stream.hpp>

namespace outrider::detail {
namespace {

std::string_view string_at(const std::byte* p) {
    return {reinterpret_cast<const char*>(p + 8), static_cast<std::size_t>(load<std::uint64_t>(p))};
}

}  // namespace

std::size_t GgufValues::fixed_size(Type type) {
    switch (type) {
        case Type::uint8:
        case Type::int8:
        case Type::boolean: return 1;
        case Type::uint16:
        case Type::int16: return 2;
        case Type::uint32:
        case Type::int32:
        case Type::float32: return 4;
        case Type::uint64:
        case Type::int64:
        case Type::float64: return 8;
        default: return 0;
    }
}

const char* GgufValues::kind(Type type) {
    switch (type) {
        case Type::float32:
        case Type::float64: return "a float";
        case Type::boolean: return "a boolean";
        case Type::string: return "a string";
        case Type::array: return "an array";
        default: return "an integer";
    }
}

bool GgufValues::is_integer(Type type) {
    return fixed_size(type) > 0 && type != Type::float32 && type != Type::float64 && type != Type::boolean;
}

double GgufValues::number_at(Type type, const std::byte* p) {
    switch (type) {
        case Type::uint8: return load<std::uint8_t>(p);
        case Type::int8: return load<std::int8_t>(p);
        case Type::uint16: return load<std::uint16_t>(p);
        case Type::int16: return load<std::int16_t>(p);
        case Type::uint32: return load<std::uint32_t>(p);
        case Type::int32: return load<std::int32_t>(p);
        case Type::float32: return load<float>(p);
        case Type::uint64: return static_cast<double>(load<std::uint64_t>(p));
        case Type::int64: return static_cast<double>(load<std::int64_t>(p));
        default: return load<double>(p);
    }
}

std::int64_t GgufValues::integer_at(Type type, const std::byte* p, std::string_view key) {
    switch (type) {
        case Type::uint8: return load<std::uint8_t>(p);
        case Type::int8: return load<std::int8_t>(p);
        case Type::uint16: return load<std::uint16_t>(p);
        case Type::int16: return load<std::int16_t>(p);
        case Type::uint32: return load<std::uint32_t>(p);
        case Type::int32: return load<std::int32_t>(p);
        case Type::int64: return load<std::int64_t>(p);
        default: break;
    }
    const auto value = load<std::uint64_t>(p);
    require(value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()), ErrorKind::damaged_file,
            "GGUF key {}: {} does not fit in 64 bits with a sign", key, value);
    return static_cast<std::int64_t>(value);
}

void GgufValues::read(GgufCursor& cursor) {
    const std::string_view key = cursor.read_string("a metadata key");
    require(!key.empty() && is_valid_utf8(key), ErrorKind::damaged_file,
            "{}: a metadata key is empty or not UTF-8: \"{}\"", name_, to_valid_utf8(key));
    Value value;
    value.type = static_cast<Type>(cursor.read<std::uint32_t>("a metadata type"));
    if (value.type == Type::array) {
        value.array = true;
        value.type = static_cast<Type>(cursor.read<std::uint32_t>("an array's type"));
        value.count = cursor.read<std::uint64_t>("an array's length");
    }
    value.start = cursor.take(0, "a metadata value");
    const std::size_t size = fixed_size(value.type);
    if (size > 0) {
        require(value.count <= cursor.left() / size, ErrorKind::damaged_file,
                "{}: key {}: {} values of {} bytes cannot be in the {} bytes left", name_, key, value.count, size,
                cursor.left());
        cursor.take(value.count * size, "a metadata value");
    } else {
        require(value.type == Type::string, ErrorKind::damaged_file,
                "{}: key {}: value type {} is unknown or a nested array", name_, key,
                static_cast<std::uint32_t>(value.type));
        for (std::uint64_t i = 0; i < value.count; ++i) cursor.read_string("a string");
    }
    require(values_.emplace(key, value).second, ErrorKind::damaged_file, "{}: metadata key {} occurs twice", name_,
            key);
}

std::vector<std::string> GgufValues::keys() const {
    std::vector<std::string> result;
    for (const auto& [key, value] : values_) result.push_back(key);
    return result;
}

bool GgufValues::is_array(std::string_view key) const {
    const auto found = values_.find(key);
    return found != values_.end() && found->second.array;
}

const GgufValues::Value& GgufValues::value(std::string_view key, const char* expected, bool array,
                                           bool (*fits)(Type)) const {
    const auto found = values_.find(key);
    const char* each = array ? "an array, each value " : "";
    require(found != values_.end(), ErrorKind::damaged_file, "{}: metadata key {} is missing; expected {}{}", name_,
            key, each, expected);
    const Value& value = found->second;
    require(value.array == array && fits(value.type), ErrorKind::damaged_file,
            "{}: metadata key {} is {}{}; expected {}{}", name_, key, value.array ? "an array, each value " : "",
            kind(value.type), each, expected);
    return value;
}

/// Calls `read(pointer)` on each value of an array of fixed size.
template <typename T, typename Read>
std::vector<T> GgufValues::read_all(const Value& value, Read read) {
    std::vector<T> result;
    result.reserve(static_cast<std::size_t>(value.count));
    const std::size_t size = fixed_size(value.type);
    for (std::uint64_t i = 0; i < value.count; ++i) result.push_back(read(value.start + i * size));
    return result;
}

std::string GgufValues::string(std::string_view key) const {
    return std::string(string_at(value(key, "a string", false, is_string).start));
}

std::int64_t GgufValues::integer(std::string_view key) const {
    const Value& found = value(key, "an integer", false, is_integer);
    return integer_at(found.type, found.start, key);
}

double GgufValues::number(std::string_view key) const {
    const Value& found = value(key, "a number", false, is_number);
    return number_at(found.type, found.start);
}

bool GgufValues::boolean(std::string_view key) const {
    return load<std::uint8_t>(value(key, "a boolean", false, is_boolean).start) != 0;
}

std::vector<std::string> GgufValues::strings(std::string_view key) const {
    const Value& found = value(key, "a string", true, is_string);
    std::vector<std::string> result;
    result.reserve(static_cast<std::size_t>(found.count));
    const std::byte* p = found.start;
    for (std::uint64_t i = 0; i < found.count; ++i) {
        result.emplace_back(string_at(p));
        p += 8 + result.back().size();
    }
    return result;
}

std::vector<std::int64_t> GgufValues::integers(std::string_view key) const {
    const Value& found = value(key, "an integer", true, is_integer);
    return read_all<std::int64_t>(found, [&](const std::byte* p) { return integer_at(found.type, p, key); });
}

std::vector<double> GgufValues::numbers(std::string_view key) const {
    const Value& found = value(key, "a number", true, is_number);
    return read_all<double>(found, [&](const std::byte* p) { return number_at(found.type, p); });
}

std::vector<bool> GgufValues::booleans(std::string_view key) const {
    const Value& found = value(key, "a boolean", true, is_boolean);
    return read_all<bool>(found, [](const std::byte* p) { return load<std::uint8_t>(p) != 0; });
}

}  // namespace outrider::detail
