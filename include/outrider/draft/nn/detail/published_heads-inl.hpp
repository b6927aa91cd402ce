// Bodies of published_heads.hpp.
#pragma once

#include <outrider/draft/nn/detail/published_heads.hpp>

#include <outrider/draft/nn/detail/published_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace fs = std::filesystem;

OUTRIDER_INLINE bool is_published(const fs::path& path) {
    std::error_code error;
    if (fs::is_regular_file(path, error)) return true;
    if (!fs::exists(path / "config.json", error)) return fs::is_directory(path, error) && !fs::is_empty(path, error);
    const nlohmann::json file = detail::read_json(path / "config.json");
    return file.is_object() && !file.contains("kind");
}

OUTRIDER_INLINE std::string published_kind(const fs::path& path) {
    const NamedTensors file = published::open_heads(path);
    for (const std::string& name : file.names())
        if (name.starts_with("hydra_mlp.")) return "hydra";
    return published::extent(file, published::medusa_prefix(file), ".linear.weight").first >= 0 ? "medusa" : "";
}

}  // namespace outrider
