// A Hydra drafter's folder: config.json and model.safetensors.
#pragma once

#include <outrider/draft/hydra/detail/hydra_config.hpp>

#include <outrider/core/error.hpp>

#include <outrider/draft/nn/detail/head_config.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

inline constexpr const char* kHydraDrafter = "Hydra drafter";

OUTRIDER_INLINE void take_prefix_layer(const nlohmann::json& layer, HydraConfig& config) {
    config.prefix_layer = true;
    config.attention_heads = whole_number(layer, "heads");
    config.kv_heads = whole_number(layer, "kv_heads");
    config.head_dim = whole_number(layer, "head_dim");
    config.intermediate = whole_number(layer, "intermediate");
    config.rope_theta = positive_number(layer, "rope_theta");
    config.norm_eps = positive_number(layer, "norm_eps");
}

OUTRIDER_INLINE HydraConfig hydra_config_of(const nlohmann::json& file) {
    HydraConfig config;
    read_head_config(file, "hydra", config);
    const auto residual = text_value(file, "residual");
    require(residual == "feature" || residual == "matrix", ErrorKind::damaged_file,
            "residual is \"{}\", expected \"feature\" or \"matrix\"", residual);
    config.residual = residual == "matrix" ? HydraResidual::matrix : HydraResidual::feature;
    config.output_bias = flag_value(file, "output_bias");
    if (!member(file, "prefix_layer").is_null()) take_prefix_layer(member(file, "prefix_layer"), config);
    config.embedding_scale = positive_number(file, "embedding_scale");
    config.feature_scale = positive_number(file, "feature_scale");
    check_hydra_config(config);
    return config;
}

}  // namespace detail

OUTRIDER_INLINE void check_hydra_config(const HydraConfig& config) {
    detail::check_head_config(detail::kHydraDrafter, config);
    if (config.prefix_layer)
        check_layer_sizes(
            detail::kHydraDrafter,
            {config.attention_heads, config.kv_heads, config.head_dim, config.rope_theta, config.norm_eps},
            config.intermediate);
    require(!config.output_bias || config.output != HeadOutput::target, ErrorKind::damaged_file,
            "{}: an output bias belongs to an output matrix of its own, not to the target's", detail::kHydraDrafter);
    require(config.embedding_scale > 0 && config.feature_scale > 0, ErrorKind::damaged_file,
            "{}: scales are {} and {}, expected above 0", detail::kHydraDrafter, config.embedding_scale,
            config.feature_scale);
}

OUTRIDER_INLINE HydraConfig read_hydra_config(const std::filesystem::path& folder) {
    HydraConfig config;
    read_drafter_json(folder, [&](const nlohmann::json& file) { config = detail::hydra_config_of(file); });
    return config;
}

OUTRIDER_INLINE void write_hydra_config(const std::filesystem::path& folder, const HydraConfig& config) {
    check_hydra_config(config);
    nlohmann::ordered_json layer;  // null without one
    if (config.prefix_layer)
        layer = {{"heads", config.attention_heads}, {"kv_heads", config.kv_heads},
                 {"head_dim", config.head_dim},     {"intermediate", config.intermediate},
                 {"rope_theta", config.rope_theta}, {"norm_eps", config.norm_eps}};
    write_drafter_config(folder, "hydra", config,
                         {{"sizes", detail::sizes_of(config)},
                          {"residual", config.residual == HydraResidual::matrix ? "matrix" : "feature"},
                          {"output", name_of(config.output)},
                          {"output_bias", config.output_bias},
                          {"prefix_layer", layer},
                          {"embedding_scale", config.embedding_scale},
                          {"feature_scale", config.feature_scale},
                          {"accuracies", config.accuracies}});
}

}  // namespace outrider
