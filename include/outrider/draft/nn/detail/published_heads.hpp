// Checkpoints of Medusa and Hydra as their authors published them: names, shapes and counts are read off the tensors,
// and what is missing or unknown is refused by name.
//
//     Medusa 1 and 2: I.J.linear.{weight,bias}, and I.N.weight where heads have output matrices of their own; in a
//     whole model the same behind "medusa_head.". Files medusa_lm_head.{pt,safetensors}, or the model's. Hydra:
//     hydra_mlp.I.J.{linear,res_connection}.{weight,bias}, hydra_lm_head.I.{weight,bias}. Hydra++ also has
//     prefix_embeding_layer.* (their spelling), and dropout counts as a place, so that blocks are 1, 3, 5, ... Files
//     hydra_lm_head.{pt,safetensors}.
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include <outrider/core/detail/export.hpp>

namespace outrider {

/// Whether `path` is anything but a folder of this library's own: a file, or a folder whose config.json names no kind.
/// Throws Error for a config.json that cannot be read.
[[nodiscard]] OUTRIDER_API bool is_published(const std::filesystem::path& path);

/// "medusa" or "hydra" by the tensors' names, or "" where there are none of either. Throws Error where there are no
/// weights that can be read.
[[nodiscard]] OUTRIDER_API std::string published_kind(const std::filesystem::path& path);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/published_heads-inl.hpp>
#endif
