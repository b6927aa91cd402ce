// Models in several GGUF files, as llama.cpp's gguf-split writes them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "gguf_values.hpp"

namespace outrider::detail {

/// The paths of all parts of the model that `path` with these values is a part of, the first one first; none for a file
/// that is whole. Throws Error for a part whose name does not say where the others are.
[[nodiscard]] std::vector<std::filesystem::path> gguf_parts(const std::filesystem::path& path,
                                                            const GgufValues& values);

/// Throws Error unless the values say that the file is part `index` (from 0) of `count`.
void check_gguf_part(const std::string& name, const GgufValues& values, std::size_t index, std::size_t count);

}  // namespace outrider::detail
