// GGUF files (versions 2 and 3, little-endian): metadata and tensors, memory-mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/ggml_types.hpp"
#include <outrider/formats/detail/mapped_file.hpp>

namespace outrider {

/// One tensor. `data` points into the mapping and is valid while any copy of the GgufFile lives.
struct GgufTensor {
    std::string name;
    GgmlType type = GgmlType::f32;
    std::vector<std::int64_t> shape;  ///< row-major, slowest first: a linear layer is [out, in]
    std::span<const std::byte> data;

    [[nodiscard]] std::int64_t elements() const noexcept {
        std::int64_t product = 1;
        for (const std::int64_t size : shape) product *= size;
        return product;
    }
};

/// A cheap handle on an immutable, parsed file. Every count, size and offset is checked when it is opened, so a damaged
/// or hostile file gives an Error and never more memory than a small multiple of its size.
class GgufFile {
public:
    /// Maps and parses `path`. A model that was split (model-00001-of-00003.gguf, ...: llama.cpp's gguf-split) is
    /// opened by any of its parts, which lie in one folder; the values are those of the first. Throws Error.
    [[nodiscard]] static GgufFile open(const std::filesystem::path& path);

    /// Parses one file's bytes in memory; `name` stands in messages.
    [[nodiscard]] static GgufFile parse(SharedBytes bytes, std::string name);

    [[nodiscard]] bool has(std::string_view key) const;
    [[nodiscard]] std::vector<std::string> keys() const;

    // Values by key. A missing key or one of another kind throws Error. Integers of every width and sign read as
    // int64; `number` reads integers as well.
    [[nodiscard]] std::string string(std::string_view key) const;
    [[nodiscard]] std::int64_t integer(std::string_view key) const;
    [[nodiscard]] double number(std::string_view key) const;
    [[nodiscard]] bool boolean(std::string_view key) const;
    [[nodiscard]] std::vector<std::string> strings(std::string_view key) const;
    [[nodiscard]] std::vector<std::int64_t> integers(std::string_view key) const;
    [[nodiscard]] std::vector<double> numbers(std::string_view key) const;
    [[nodiscard]] std::vector<bool> booleans(std::string_view key) const;

    // The same, empty for a missing key.
    [[nodiscard]] std::optional<std::string> find_string(std::string_view key) const;
    [[nodiscard]] std::optional<std::int64_t> find_integer(std::string_view key) const;
    [[nodiscard]] std::optional<double> find_number(std::string_view key) const;
    [[nodiscard]] std::optional<bool> find_boolean(std::string_view key) const;

    /// True when the value of `key` is an array (some models have one value a layer where others have one).
    [[nodiscard]] bool is_array(std::string_view key) const;

    [[nodiscard]] const std::vector<GgufTensor>& tensors() const noexcept;
    [[nodiscard]] bool has_tensor(std::string_view name) const;
    /// Throws Error when there is none of that name.
    [[nodiscard]] const GgufTensor& tensor(std::string_view name) const;

    /// SharedBytes::drop_pages for a tensor's data.
    void drop_pages(std::span<const std::byte> part) const noexcept;

    [[nodiscard]] std::uint32_t version() const noexcept;
    /// The path (or given name), for messages.
    [[nodiscard]] const std::string& name() const noexcept;

private:
    struct Contents;
    explicit GgufFile(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}
    std::shared_ptr<const Contents> contents_;
};

/// The tensor as f32, row-major. The Error for a type that cannot be read names the type and the tensor.
[[nodiscard]] std::vector<float> to_floats(const GgufTensor& tensor);

/// The same into `out`, which holds tensor.elements() floats.
void dequantise(const GgufTensor& tensor, std::span<float> out);

}  // namespace outrider
