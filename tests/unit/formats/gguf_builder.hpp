// Writes tiny GGUF files in memory, right ones and wrong ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace outrider::test {

/// Values are appended in order; `build` puts header, metadata, tensor infos and data together.
class GgufBuilder {
public:
    template <typename T>
    static void put(std::string& to, T value) {
        to.append(reinterpret_cast<const char*>(&value), sizeof(T));
    }
    static void put_string(std::string& to, std::string_view text) {
        put<std::uint64_t>(to, text.size());
        to.append(text);
    }

    template <typename T>
    GgufBuilder& scalar(std::string_view key, T value) {
        return raw(key, type_of<T>(), std::string(reinterpret_cast<const char*>(&value), sizeof(T)));
    }
    GgufBuilder& text(std::string_view key, std::string_view value) {
        std::string bytes;
        put_string(bytes, value);
        return raw(key, 8, bytes);
    }
    template <typename T>
    GgufBuilder& array(std::string_view key, const std::vector<T>& values) {
        std::string bytes;
        put<std::uint32_t>(bytes, type_of<T>());
        put<std::uint64_t>(bytes, values.size());
        for (const T& value : values) {
            if constexpr (std::is_same_v<T, std::string>)
                put_string(bytes, value);
            else
                put(bytes, value);
        }
        return raw(key, 9, bytes);
    }
    GgufBuilder& raw(std::string_view key, std::uint32_t type, std::string_view bytes) {
        put_string(values_, key);
        put(values_, type);
        values_.append(bytes);
        ++value_count;
        return *this;
    }

    /// Dimensions fastest first, as in the file. The offset is the end of the data so far, rounded up.
    GgufBuilder& tensor(std::string_view name, std::vector<std::uint64_t> dimensions, std::uint32_t type,
                        std::string_view data) {
        data_.resize((data_.size() + alignment - 1) / alignment * alignment);
        tensor_at(name, dimensions, type, data_.size());
        data_.append(data);
        return *this;
    }
    GgufBuilder& tensor_at(std::string_view name, const std::vector<std::uint64_t>& dimensions, std::uint32_t type,
                           std::uint64_t offset) {
        put_string(tensors_, name);
        put<std::uint32_t>(tensors_, static_cast<std::uint32_t>(dimensions.size()));
        for (const std::uint64_t size : dimensions) put(tensors_, size);
        put(tensors_, type);
        put(tensors_, offset);
        ++tensor_count;
        return *this;
    }
    GgufBuilder& data(std::string_view bytes) {
        data_.append(bytes);
        return *this;
    }

    [[nodiscard]] std::string build() const {
        std::string file = magic;
        put(file, version);
        put(file, tensor_count);
        put(file, value_count);
        file += values_ + tensors_;
        file.resize((file.size() + alignment - 1) / alignment * alignment);
        return file + data_;
    }

    std::string magic = "GGUF";
    std::uint32_t version = 3;
    std::uint64_t tensor_count = 0, value_count = 0;  // counted by the calls above, open to lies
    std::size_t alignment = 32;

private:
    template <typename T>
    static constexpr std::uint32_t type_of() {
        if constexpr (std::is_same_v<T, std::uint8_t>)
            return 0;
        else if constexpr (std::is_same_v<T, std::int8_t>)
            return 1;
        else if constexpr (std::is_same_v<T, std::uint16_t>)
            return 2;
        else if constexpr (std::is_same_v<T, std::int16_t>)
            return 3;
        else if constexpr (std::is_same_v<T, std::uint32_t>)
            return 4;
        else if constexpr (std::is_same_v<T, std::int32_t>)
            return 5;
        else if constexpr (std::is_same_v<T, float>)
            return 6;
        else if constexpr (std::is_same_v<T, bool>)
            return 7;
        else if constexpr (std::is_same_v<T, std::string>)
            return 8;
        else if constexpr (std::is_same_v<T, std::uint64_t>)
            return 10;
        else if constexpr (std::is_same_v<T, std::int64_t>)
            return 11;
        else {
            static_assert(std::is_same_v<T, double>);
            return 12;
        }
    }

    std::string values_, tensors_, data_;
};

inline std::span<const std::byte> as_bytes(std::string_view text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace outrider::test
