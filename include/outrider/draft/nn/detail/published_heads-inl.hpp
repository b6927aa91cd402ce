// Bodies of published_heads.hpp.
#pragma once

#include <outrider/draft/nn/detail/published_heads.hpp>

#include <optional>

#include <outrider/draft/nn/detail/published_file.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE bool is_published(const std::filesystem::path& path) {
    std::error_code error;
    if (std::filesystem::is_regular_file(path, error)) return true;
    if (!std::filesystem::exists(path / "config.json", error)) return std::filesystem::is_directory(path, error) && !std::filesystem::is_empty(path, error);
    std::ifstream in(path / "config.json");
    const nlohmann::json file = nlohmann::json::parse(in, nullptr, false);
    return file.is_object() && !file.contains("kind");
}

OUTRIDER_INLINE std::string published_kind(const std::filesystem::path& path) {
    std::optional<NamedTensors> file;
    try {
        file.emplace(published::open_heads(path));
    } catch (const Error&) {
        return "";  // no weights of any form here
    }
    for (const std::string& name : file->names())
        if (name.starts_with("hydra_mlp.")) return "hydra";
    return published::extent(*file, published::medusa_prefix(*file), ".linear.weight").first >= 0 ? "medusa" : "";
}

}  // namespace outrider
