// safetensors: one file or a Hugging Face folder of shards, memory-mapped; and writing one file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/formats/detail/mapped_file.hpp>

namespace outrider {

enum class SafeDtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

/// Bytes of one number.
[[nodiscard]] OUTRIDER_API std::size_t safe_dtype_bytes(SafeDtype dtype) noexcept;

/// The format's own name, "BF16".
[[nodiscard]] OUTRIDER_API const char* safe_dtype_name(SafeDtype dtype) noexcept;

/// One tensor. `data` points into the mapping, valid while any copy of the SafeTensors lives; it may be unaligned.
struct SafeTensor {
    std::string name;
    SafeDtype dtype = SafeDtype::f32;
    std::vector<std::int64_t> shape;  ///< row-major; empty: a scalar
    std::span<const std::byte> data;

    [[nodiscard]] std::int64_t elements() const noexcept {
        return static_cast<std::int64_t>(data.size() / safe_dtype_bytes(dtype));
    }
};

/// A cheap handle on immutable, parsed files. Counts, sizes and offsets are checked when they are opened.
class OUTRIDER_API SafeTensors {
public:
    /// A file, or a folder with model.safetensors.index.json and its shards, or with model.safetensors. Throws Error.
    [[nodiscard]] static SafeTensors open(const std::filesystem::path& path);

    /// One file's bytes in memory; `name` stands in messages.
    [[nodiscard]] static SafeTensors parse(SharedBytes bytes, std::string name);

    [[nodiscard]] bool has(std::string_view name) const;
    /// Throws Error when there is none of that name.
    [[nodiscard]] const SafeTensor& tensor(std::string_view name) const;
    /// In the order of the data, file by file.
    [[nodiscard]] const std::vector<SafeTensor>& tensors() const noexcept;
    [[nodiscard]] std::vector<std::string> names() const;

    /// The texts under __metadata__; those of all shards together, the first file's where they disagree.
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept;

    /// SharedBytes::drop_pages for a tensor's data.
    void drop_pages(std::span<const std::byte> part) const noexcept;

    /// The path, for messages.
    [[nodiscard]] const std::string& name() const noexcept;

private:
    struct Contents;
    explicit SafeTensors(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}
    std::shared_ptr<const Contents> contents_;
};

/// The numbers of a tensor as f32; integers and F64 are rounded. Throws Error unless `out` holds elements() floats.
OUTRIDER_API void to_floats(const SafeTensor& tensor, std::span<float> out);
[[nodiscard]] OUTRIDER_API std::vector<float> to_floats(const SafeTensor& tensor);

/// A tensor to write; nothing is owned.
struct SafeTensorView {
    std::string name;
    SafeDtype dtype = SafeDtype::f32;
    std::vector<std::int64_t> shape;
    std::span<const std::byte> data;
};

/// Writes one file, at once or not at all: to a name beside `path`, flushed to the disk, then renamed over it. Throws
/// Error for doubled names, data that do not fit the shapes, and a disk that refuses.
OUTRIDER_API void write_safetensors(const std::filesystem::path& path, std::span<const SafeTensorView> tensors,
                                    const std::map<std::string, std::string>& metadata = {});

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/formats/detail/safetensors-inl.hpp>
#include <outrider/formats/detail/safetensors_write-inl.hpp>
#endif
