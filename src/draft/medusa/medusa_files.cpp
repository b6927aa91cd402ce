// A Medusa drafter's folder: config.json and model.safetensors.
#include <outrider/core/error.hpp>

#include "medusa_layout.hpp"

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
        read_common(file, "medusa", config);
        const nlohmann::json& sizes = member(file, "sizes");
        config.hidden = whole_number(sizes, "hidden");
        config.heads = whole_number(sizes, "heads");
        config.blocks = whole_number(sizes, "blocks");
        config.output = head_output(text_value(file, "output"));
        config.accuracies = number_lists(file, "accuracies");
        check_medusa_config(config);
    });
    return config;
}

void write_medusa_config(const std::filesystem::path& folder, const MedusaConfig& config) {
    check_medusa_config(config);
    write_drafter_config(folder, "medusa", config,
                         {{"sizes", {{"hidden", config.hidden}, {"heads", config.heads}, {"blocks", config.blocks}}},
                          {"output", name_of(config.output)},
                          {"accuracies", config.accuracies}});
}

MedusaWeights read_medusa_weights(const std::filesystem::path& folder, const MedusaConfig& config, WeightType type) {
    MedusaWeights weights;
    read_weights(folder, kDrafter, layout(config, weights), type);
    return weights;
}

void write_medusa_weights(const std::filesystem::path& folder, const MedusaWeights& weights) {
    write_weights(folder, "medusa", weights.named());
}

}  // namespace outrider
