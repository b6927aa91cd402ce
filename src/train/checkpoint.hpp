// The whole state of a training run in one file.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "train/adamw.hpp"

#include "anchor_batches.hpp"

namespace outrider {

struct RunState {
    std::int64_t step = 0, anchors = 0, skipped_anchors = 0, skipped_steps = 0;
    double seconds = 0.0;
    AnchorSampler::Place place;
    /// Text and row of conversations whose features were not there when the run began: it does without them to its end.
    std::set<std::pair<std::size_t, std::int64_t>> left_out = {};
};

/// Written beside and renamed, so that a killed run leaves the last whole one. `names`: of the optimiser's weights.
void write_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names,
                      const OptimiserState& optimiser, const RunState& state);

/// Fills weights, moments, averages and number of steps in place. Throws Error when names or shapes differ.
void read_checkpoint(const std::filesystem::path& path, const std::vector<std::string>& names,
                     OptimiserState& optimiser);

/// Where the run was. Throws Error for a file that is no checkpoint.
[[nodiscard]] RunState read_run_state(const std::filesystem::path& path);

}  // namespace outrider
