// The whole state of a training run in one file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train/adamw.hpp"

#include "anchor_batches.hpp"

namespace outrider {

struct RunState {
    std::int64_t step = 0, anchors = 0, skipped_anchors = 0, skipped_steps = 0;
    double seconds = 0.0;
    AnchorSampler::Place place;
};

/// Written beside and renamed, so that a killed run leaves the last whole one. `names`: of the optimiser's weights.
void write_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names, AdamW& optimiser,
                      const RunState& state);

/// Fills weights, moments and averages in place. Throws Error when names or shapes differ.
[[nodiscard]] RunState read_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names,
                                       AdamW& optimiser);

}  // namespace outrider
