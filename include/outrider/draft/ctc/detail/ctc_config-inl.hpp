// A CTC drafter's folder: config.json and model.safetensors.
#pragma once

#include <outrider/draft/ctc/detail/ctc_config.hpp>

#include <outrider/core/error.hpp>

#include <outrider/formats/detail/json_text.hpp>
#include <outrider/draft/nn/detail/drafter_files.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

inline constexpr const char* kCtcDrafter = "CTC drafter";

/// Beyond any model; keeps products of sizes in range.
inline constexpr std::int64_t kMostFeatureLayers = 4096;

OUTRIDER_INLINE std::vector<std::int64_t> feature_layers(const nlohmann::json& file) {
    std::vector<std::int64_t> layers;
    if (!file.contains("feature_layers")) return layers;
    const nlohmann::json& list = member(file, "feature_layers");
    require(list.is_array(), ErrorKind::damaged_file, "feature_layers is {}, expected a list of layers",
            detail::shown(list));
    for (const nlohmann::json& layer : list) {
        require(layer.is_number_unsigned() && layer <= kMostFeatureLayers, ErrorKind::damaged_file,
                "feature_layers holds {}, expected layers, 1 to {}", detail::shown(layer), kMostFeatureLayers);
        layers.push_back(layer.get<std::int64_t>());
    }
    return layers;
}

OUTRIDER_INLINE CtcConfig ctc_config_of(const nlohmann::json& file) {
    CtcConfig config;
    read_common(file, "ctc", config);
    const nlohmann::json& sizes = member(file, "sizes");
    config.hidden = whole_number(sizes, "hidden");
    if (sizes.contains("layers")) config.layers = whole_number(sizes, "layers");
    config.heads = whole_number(sizes, "heads");
    config.kv_heads = whole_number(sizes, "kv_heads");
    config.head_dim = whole_number(sizes, "head_dim");
    config.intermediate = whole_number(sizes, "intermediate");
    config.frames = whole_number(sizes, "frames");
    config.prefix_rank = whole_number(sizes, "prefix_rank");
    if (sizes.contains("prefix_bottleneck")) config.prefix_bottleneck = whole_number(sizes, "prefix_bottleneck");
    if (file.contains("prefix_output")) config.prefix_output = head_output(text_value(file, "prefix_output"));
    config.feature_layers = feature_layers(file);
    const auto conditioning = text_value(file, "conditioning");
    require(conditioning == "none" || conditioning == "prefix", ErrorKind::damaged_file,
            "conditioning is \"{}\", expected \"none\" or \"prefix\"", conditioning);
    config.conditioning = conditioning == "prefix" ? CtcConditioning::prefix : CtcConditioning::none;
    config.rope_theta = positive_number(file, "rope_theta");
    config.norm_eps = positive_number(file, "norm_eps");
    config.embedding_scale = positive_number(file, "embedding_scale");
    config.feature_scale = positive_number(file, "feature_scale");
    check_ctc_config(config);
    return config;
}

}  // namespace detail

OUTRIDER_INLINE void check_ctc_config(const CtcConfig& config) {
    check_drafter_size(detail::kCtcDrafter, "hidden", config.hidden);
    check_drafter_size(detail::kCtcDrafter, "layers", config.layers);
    require(config.layers <= 16, ErrorKind::damaged_file, "{}: {} decoder layers, at most 16", detail::kCtcDrafter,
            config.layers);
    check_layer_sizes(detail::kCtcDrafter, {config.heads, config.kv_heads, config.head_dim}, config.intermediate);
    check_drafter_size(detail::kCtcDrafter, "frames", config.frames);
    require(config.frames <= 64, ErrorKind::damaged_file, "{}: {} frames, at most 64", detail::kCtcDrafter,
            config.frames);
    std::int64_t above = 0;
    for (const std::int64_t layer : config.feature_layers) {
        require(layer > above && layer <= detail::kMostFeatureLayers, ErrorKind::damaged_file,
                "{}: feature layer {} behind {}, expected 1 to {} in ascending order, each once", detail::kCtcDrafter,
                layer, above, detail::kMostFeatureLayers);
        above = layer;
    }
    if (config.conditioning == CtcConditioning::prefix)
        check_drafter_size(detail::kCtcDrafter, "prefix_rank", config.prefix_rank);
    require(config.prefix_bottleneck >= 0 && config.prefix_bottleneck <= config.prefix_rank, ErrorKind::damaged_file,
            "{}: prefix_bottleneck is {}, expected 1 to the prefix_rank {}, or 0 for none", detail::kCtcDrafter,
            config.prefix_bottleneck, config.prefix_rank);
    require(config.prefix_output != HeadOutput::shared, ErrorKind::damaged_file,
            "{}: prefix_output is \"shared\", expected \"own\" or \"target\"", detail::kCtcDrafter);
    require(!config.vocabulary.empty(), ErrorKind::damaged_file, "{}: the draft vocabulary is empty",
            detail::kCtcDrafter);
    check_draft_vocabulary(detail::kCtcDrafter, config.vocabulary);
}

OUTRIDER_INLINE CtcConfig read_ctc_config(const std::filesystem::path& folder) {
    CtcConfig config;
    read_drafter_json(folder, [&](const nlohmann::json& file) { config = detail::ctc_config_of(file); });
    return config;
}

OUTRIDER_INLINE void write_ctc_config(const std::filesystem::path& folder, const CtcConfig& config) {
    nlohmann::ordered_json own = {{"conditioning", config.conditioning == CtcConditioning::prefix ? "prefix" : "none"},
                                  {"sizes",
                                   {{"hidden", config.hidden},
                                    {"heads", config.heads},
                                    {"kv_heads", config.kv_heads},
                                    {"head_dim", config.head_dim},
                                    {"intermediate", config.intermediate},
                                    {"frames", config.frames},
                                    {"prefix_rank", config.prefix_rank}}},
                                  {"rope_theta", config.rope_theta},
                                  {"norm_eps", config.norm_eps},
                                  {"embedding_scale", config.embedding_scale},
                                  {"feature_scale", config.feature_scale}};
    if (config.prefix_output != HeadOutput::own) own["prefix_output"] = name_of(config.prefix_output);
    if (config.prefix_bottleneck > 0) own["sizes"]["prefix_bottleneck"] = config.prefix_bottleneck;
    if (config.layers > 1) own["sizes"]["layers"] = config.layers;
    if (!config.feature_layers.empty()) own["feature_layers"] = config.feature_layers;
    write_drafter_config(folder, "ctc", config, own);
}

}  // namespace outrider
