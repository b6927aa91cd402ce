// Which weights a config asks for, under which names and in which shapes: one list for reading, checking and naming.
#pragma once

#include <vector>

// First what the bodies behind the network's header need.
#include <outrider/draft/nn/detail/weight_layout.hpp>

#include <outrider/draft/ctc/detail/ctc_network.hpp>

namespace outrider {

/// Sizes the vectors in `weights` to the config and lists all weights.
[[nodiscard]] std::vector<WantedWeight> layout(const CtcConfig& config, CtcWeights& weights);

}  // namespace outrider
