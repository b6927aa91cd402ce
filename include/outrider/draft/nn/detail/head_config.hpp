// What the configurations of Medusa and Hydra have in common, read and checked.
#pragma once

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/drafter_files.hpp>
#include <outrider/draft/nn/detail/head_output.hpp>

namespace outrider::detail {

/// `name`: of the kind, for messages. Throws Error.
template <typename Config>
void check_head_config(const char* name, const Config& config) {
    check_drafter_size(name, "hidden", config.hidden);
    check_drafter_size(name, "heads", config.heads);
    check_drafter_size(name, "blocks", config.blocks);
    require(config.heads <= 64 && config.blocks <= 64, ErrorKind::damaged_file,
            "{}: {} heads of {} blocks, at most 64 of each", name, config.heads, config.blocks);
    check_draft_vocabulary(name, config.vocabulary);
    check_accuracies(name, config.accuracies, config.heads);
}

/// What every drafter's file says, and sizes, output and accuracies. Throws Error.
template <typename Config>
void read_head_config(const nlohmann::json& file, const char* kind, Config& config) {
    read_common(file, kind, config);
    const nlohmann::json& sizes = member(file, "sizes");
    config.hidden = whole_number(sizes, "hidden");
    config.heads = whole_number(sizes, "heads");
    config.blocks = whole_number(sizes, "blocks");
    config.output = head_output(text_value(file, "output"));
    config.accuracies = number_lists(file, "accuracies");
}

template <typename Config>
[[nodiscard]] nlohmann::ordered_json sizes_of(const Config& config) {
    return {{"hidden", config.hidden}, {"heads", config.heads}, {"blocks", config.blocks}};
}

}  // namespace outrider::detail
