// A CTC drafter's folder: config.json and model.safetensors.
#include <outrider/core/error.hpp>
#include <outrider/draft/ctc/ctc_config.hpp>
#include <outrider/draft/ctc/ctc_network.hpp>

#include "formats/json_text.hpp"
#include "ctc_layout.hpp"

namespace outrider {

namespace {

using nlohmann::json;

constexpr const char* kDrafter = "CTC drafter";

/// Beyond any model; keeps products of sizes in range.
constexpr std::int64_t kMostLayers = 4096;

std::vector<std::int64_t> feature_layers(const json& file) {
    std::vector<std::int64_t> layers;
    if (!file.contains("feature_layers")) return layers;
    const json& list = member(file, "feature_layers");
    require(list.is_array(), "feature_layers is {}, expected a list of layers", detail::shown(list));
    for (const json& layer : list) {
        require(layer.is_number_unsigned() && layer <= kMostLayers, "feature_layers holds {}, expected layers, 1 to {}",
                detail::shown(layer), kMostLayers);
        layers.push_back(layer.get<std::int64_t>());
    }
    return layers;
}

CtcConfig from_json(const json& file) {
    CtcConfig config;
    read_common(file, "ctc", config);
    const json& sizes = member(file, "sizes");
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
    require(conditioning == "none" || conditioning == "prefix",
            "conditioning is \"{}\", expected \"none\" or \"prefix\"", conditioning);
    config.conditioning = conditioning == "prefix" ? CtcConditioning::prefix : CtcConditioning::none;
    config.rope_theta = positive_number(file, "rope_theta");
    config.norm_eps = positive_number(file, "norm_eps");
    config.embedding_scale = positive_number(file, "embedding_scale");
    config.feature_scale = positive_number(file, "feature_scale");
    check_ctc_config(config);
    return config;
}

}  // namespace

void check_ctc_config(const CtcConfig& config) {
    check_drafter_size(kDrafter, "hidden", config.hidden);
    check_drafter_size(kDrafter, "layers", config.layers);
    require(config.layers <= 16, "{}: {} decoder layers, at most 16", kDrafter, config.layers);
    check_layer_sizes(kDrafter, {config.heads, config.kv_heads, config.head_dim}, config.intermediate);
    check_drafter_size(kDrafter, "frames", config.frames);
    require(config.frames <= 64, "{}: {} frames, at most 64", kDrafter, config.frames);
    std::int64_t above = 0;
    for (const std::int64_t layer : config.feature_layers) {
        require(layer > above && layer <= kMostLayers,
                "{}: feature layer {} behind {}, expected 1 to {} in ascending order, each once", kDrafter, layer,
                above, kMostLayers);
        above = layer;
    }
    if (config.conditioning == CtcConditioning::prefix) check_drafter_size(kDrafter, "prefix_rank", config.prefix_rank);
    require(config.prefix_bottleneck >= 0 && config.prefix_bottleneck <= config.prefix_rank,
            "{}: prefix_bottleneck is {}, expected 1 to the prefix_rank {}, or 0 for none", kDrafter,
            config.prefix_bottleneck, config.prefix_rank);
    require(config.prefix_output != HeadOutput::shared,
            "{}: prefix_output is \"shared\", expected \"own\" or \"target\"", kDrafter);
    require(!config.vocabulary.empty(), "{}: the draft vocabulary is empty", kDrafter);
    check_draft_vocabulary(kDrafter, config.vocabulary);
}

CtcConfig read_ctc_config(const std::filesystem::path& folder) {
    CtcConfig config;
    read_drafter_json(folder, [&](const json& file) { config = from_json(file); });
    return config;
}

void write_ctc_config(const std::filesystem::path& folder, const CtcConfig& config) {
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

CtcWeights read_ctc_weights(const std::filesystem::path& folder, const CtcConfig& config, WeightType type) {
    CtcWeights weights;
    read_weights(folder, kDrafter, layout(config, weights), type);
    return weights;
}

void write_ctc_weights(const std::filesystem::path& folder, const CtcWeights& weights) {
    write_weights(folder, "ctc", weights.named());
}

}  // namespace outrider
