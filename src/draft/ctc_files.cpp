// A CTC drafter's folder: config.json and model.safetensors.
#include <outrider/core/error.hpp>
#include <outrider/draft/ctc_config.hpp>
#include <outrider/draft/ctc_network.hpp>

#include "weight_layout.hpp"

namespace outrider {

namespace {

using nlohmann::json;

constexpr const char* kDrafter = "CTC drafter";

CtcConfig from_json(const json& file) {
    CtcConfig config;
    check_drafter_kind(file, "ctc", CtcConfig::kVersion);
    const json& sizes = file.at("sizes");
    config.hidden = sizes.at("hidden").get<std::int64_t>();
    config.heads = sizes.at("heads").get<std::int64_t>();
    config.kv_heads = sizes.at("kv_heads").get<std::int64_t>();
    config.head_dim = sizes.at("head_dim").get<std::int64_t>();
    config.intermediate = sizes.at("intermediate").get<std::int64_t>();
    config.frames = sizes.at("frames").get<std::int64_t>();
    config.prefix_rank = sizes.at("prefix_rank").get<std::int64_t>();
    const auto conditioning = file.at("conditioning").get<std::string>();
    require(conditioning == "none" || conditioning == "prefix",
            "conditioning is \"{}\", expected \"none\" or \"prefix\"", conditioning);
    config.conditioning = conditioning == "prefix" ? CtcConditioning::prefix : CtcConditioning::none;
    config.rope_theta = file.at("rope_theta").get<double>();
    config.norm_eps = file.at("norm_eps").get<double>();
    config.embedding_scale = file.at("embedding_scale").get<double>();
    config.feature_scale = file.at("feature_scale").get<double>();
    config.target_fingerprint = file.at("target").at("fingerprint").get<std::string>();
    config.target_name = file.at("target").at("name").get<std::string>();
    config.vocabulary = file.at("vocabulary").get<std::vector<TokenId>>();
    config.training = file.value("training", json::object()).dump();
    check_ctc_config(config);
    return config;
}

}  // namespace

void check_ctc_config(const CtcConfig& config) {
    check_drafter_size(kDrafter, "hidden", config.hidden);
    check_layer_sizes(kDrafter, {config.heads, config.kv_heads, config.head_dim}, config.intermediate);
    check_drafter_size(kDrafter, "frames", config.frames);
    require(config.frames <= 64, "{}: {} frames, at most 64", kDrafter, config.frames);
    if (config.conditioning == CtcConditioning::prefix) check_drafter_size(kDrafter, "prefix_rank", config.prefix_rank);
    require(!config.vocabulary.empty(), "{}: the draft vocabulary is empty", kDrafter);
    check_draft_vocabulary(kDrafter, config.vocabulary);
}

CtcConfig read_ctc_config(const std::filesystem::path& folder) {
    CtcConfig config;
    read_drafter_json(folder, [&](const json& file) { config = from_json(file); });
    return config;
}

void write_ctc_config(const std::filesystem::path& folder, const CtcConfig& config) {
    write_drafter_json(folder,
                       {{"kind", "ctc"},
                        {"version", CtcConfig::kVersion},
                        {"target", {{"name", config.target_name}, {"fingerprint", config.target_fingerprint}}},
                        {"conditioning", config.conditioning == CtcConditioning::prefix ? "prefix" : "none"},
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
                        {"feature_scale", config.feature_scale},
                        {"training", nlohmann::ordered_json::parse(config.training)}},
                       config.vocabulary);
}

CtcWeights read_ctc_weights(const std::filesystem::path& folder, const CtcConfig& config) {
    CtcWeights weights;
    read_weights(folder, kDrafter, layout(config, weights));
    return weights;
}

void write_ctc_weights(const std::filesystem::path& folder, const CtcWeights& weights) {
    write_weights(folder, "ctc", weights.named());
}

}  // namespace outrider
