// A Medusa drafter's folder: config.json and model.safetensors.
#pragma once

#include <outrider/draft/medusa/detail/medusa_config.hpp>

#include <outrider/core/error.hpp>

#include <outrider/draft/nn/detail/head_config.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

inline constexpr const char* kMedusaDrafter = "Medusa drafter";

}  // namespace detail

OUTRIDER_INLINE void check_medusa_config(const MedusaConfig& config) {
    detail::check_head_config(detail::kMedusaDrafter, config);
}

OUTRIDER_INLINE MedusaConfig read_medusa_config(const std::filesystem::path& folder) {
    MedusaConfig config;
    read_drafter_json(folder, [&](const nlohmann::json& file) {
        detail::read_head_config(file, "medusa", config);
        check_medusa_config(config);
    });
    return config;
}

OUTRIDER_INLINE void write_medusa_config(const std::filesystem::path& folder, const MedusaConfig& config) {
    check_medusa_config(config);
    write_drafter_config(
        folder, "medusa", config,
        {{"sizes", detail::sizes_of(config)}, {"output", name_of(config.output)}, {"accuracies", config.accuracies}});
}

}  // namespace outrider
