// A Medusa drafter's folder: config.json and model.safetensors.
#include <outrider/core/error.hpp>

#include "weight_layout.hpp"

namespace outrider {

namespace {

constexpr const char* kDrafter = "Medusa drafter";

}  // namespace

void check_medusa_config(const MedusaConfig& config) {
    check_drafter_size(kDrafter, "hidden", config.hidden);
    check_drafter_size(kDrafter, "heads", config.heads);
    check_drafter_size(kDrafter, "blocks", config.blocks);
    require(config.heads <= 64 && config.blocks <= 64, "{}: {} heads of {} blocks, at most 64 of each", kDrafter,
            config.heads, config.blocks);
    check_draft_vocabulary(kDrafter, config.vocabulary);
    check_accuracies(kDrafter, config.accuracies, config.heads);
}

MedusaConfig read_medusa_config(const std::filesystem::path& folder) {
    MedusaConfig config;
    read_drafter_json(folder, [&](const nlohmann::json& file) {
        check_drafter_kind(file, "medusa", MedusaConfig::kVersion);
        const nlohmann::json& sizes = file.at("sizes");
        config.hidden = sizes.at("hidden").get<std::int64_t>();
        config.heads = sizes.at("heads").get<std::int64_t>();
        config.blocks = sizes.at("blocks").get<std::int64_t>();
        config.output = head_output(file.at("output").get<std::string>());
        config.target_fingerprint = file.at("target").at("fingerprint").get<std::string>();
        config.target_name = file.at("target").at("name").get<std::string>();
        config.vocabulary = file.at("vocabulary").get<std::vector<TokenId>>();
        config.accuracies = file.value("accuracies", config.accuracies);
        config.training = file.value("training", nlohmann::json::object()).dump();
        check_medusa_config(config);
    });
    return config;
}

void write_medusa_config(const std::filesystem::path& folder, const MedusaConfig& config) {
    check_medusa_config(config);
    write_drafter_json(folder,
                       {{"kind", "medusa"},
                        {"version", MedusaConfig::kVersion},
                        {"target", {{"name", config.target_name}, {"fingerprint", config.target_fingerprint}}},
                        {"sizes", {{"hidden", config.hidden}, {"heads", config.heads}, {"blocks", config.blocks}}},
                        {"output", name(config.output)},
                        {"accuracies", config.accuracies},
                        {"training", nlohmann::ordered_json::parse(config.training)}},
                       config.vocabulary);
}

MedusaWeights read_medusa_weights(const std::filesystem::path& folder, const MedusaConfig& config) {
    MedusaWeights weights;
    read_weights(folder, kDrafter, layout(config, weights));
    return weights;
}

void write_medusa_weights(const std::filesystem::path& folder, const MedusaWeights& weights) {
    write_weights(folder, "medusa", weights.named());
}

}  // namespace outrider
