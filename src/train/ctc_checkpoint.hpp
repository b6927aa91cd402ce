// The whole state of a CTC training run in one file.
#pragma once

#include <filesystem>
#include <string>

#include <outrider/draft/ctc_network.hpp>
#include <outrider/train/adamw.hpp>

#include "anchor_batches.hpp"

namespace outrider {

struct CtcRunState {
    std::int64_t step = 0, anchors = 0, skipped_anchors = 0, skipped_steps = 0;
    double seconds = 0.0;
    AnchorSampler::Place place;
};

/// Written beside and renamed, so that a killed run leaves the last whole one.
void write_ctc_checkpoint(const std::filesystem::path& path, const CtcWeights& weights, AdamW& optimiser,
                          const CtcRunState& state);

/// Fills weights, moments and averages in place. Throws Error when names or shapes differ.
[[nodiscard]] CtcRunState read_ctc_checkpoint(const std::filesystem::path& path, const CtcWeights& weights,
                                              AdamW& optimiser);

}  // namespace outrider
