// Bodies of named_tensors.hpp.
#pragma once

#include <outrider/formats/detail/named_tensors.hpp>

#include <array>
#include <fstream>
#include <string_view>
#include <system_error>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// By its ending, or as a zip archive begins.
OUTRIDER_INLINE bool is_torch_archive(const std::filesystem::path& file) {
    const auto ending = file.extension();
    if (ending == ".pt" || ending == ".pth" || ending == ".bin") return true;
    std::array<char, 4> begin{};
    std::ifstream(file, std::ios::binary).read(begin.data(), begin.size());
    return std::string_view(begin.data(), begin.size()) == "PK\x03\x04";
}

#ifndef OUTRIDER_COMPILED
inline NamedTensors open_torch_archive(const std::filesystem::path& path) {
    fail(
        ErrorKind::damaged_file,
        "{}: expected safetensors, got an archive of torch.save, which the headers alone do not read; save the tensors "
        "as safetensors, or link outrider::outrider",
        path.string());
}
#endif

}  // namespace detail

OUTRIDER_INLINE NamedTensors NamedTensors::open(const std::filesystem::path& path) {
    std::error_code ignored;
    if (!std::filesystem::is_directory(path, ignored))
        return detail::is_torch_archive(path) ? detail::open_torch_archive(path)
                                              : NamedTensors(SafeTensors::open(path));
    const auto has = [&](const char* file) { return std::filesystem::exists(path / file, ignored); };
    if (has("model.safetensors") || has("model.safetensors.index.json")) return SafeTensors::open(path);
    require(
        has("pytorch_model.bin") || has("pytorch_model.bin.index.json"), ErrorKind::damaged_file,
        "{}: expected model.safetensors, pytorch_model.bin, or one of them with .index.json and shards in the folder",
        path.string());
    return detail::open_torch_archive(path);
}

}  // namespace outrider
