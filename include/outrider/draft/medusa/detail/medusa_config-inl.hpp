// A Medusa drafter's folder: config.json and model.safetensors.
#pragma once

#include <outrider/draft/medusa/detail/medusa_config.hpp>

#include <outrider/core/error.hpp>

#include <outrider/draft/nn/detail/drafter_files.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

inline constexpr const char* kMedusaDrafter = "Medusa drafter";

}  // namespace detail

OUTRIDER_INLINE void check_medusa_config(const MedusaConfig& config) {
    check_drafter_size(detail::kMedusaDrafter, "hidden", config.hidden);
    check_drafter_size(detail::kMedusaDrafter, "heads", config.heads);
    check_drafter_size(detail::kMedusaDrafter, "blocks", config.blocks);
    require(config.heads <= 64 && config.blocks <= 64, ErrorKind::damaged_file,
            "{}: {} heads of {} blocks, at most 64 of each", detail::kMedusaDrafter, config.heads, config.blocks);
    check_draft_vocabulary(detail::kMedusaDrafter, config.vocabulary);
    check_accuracies(detail::kMedusaDrafter, config.accuracies, config.heads);
}

OUTRIDER_INLINE MedusaConfig read_medusa_config(const std::filesystem::path& folder) {
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

OUTRIDER_INLINE void write_medusa_config(const std::filesystem::path& folder, const MedusaConfig& config) {
    check_medusa_config(config);
    write_drafter_config(folder, "medusa", config,
                         {{"sizes", {{"hidden", config.hidden}, {"heads", config.heads}, {"blocks", config.blocks}}},
                          {"output", name_of(config.output)},
                          {"accuracies", config.accuracies}});
}

}  // namespace outrider
