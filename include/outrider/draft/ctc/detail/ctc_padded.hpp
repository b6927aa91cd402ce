// The frames of all groups of a batch at once.
#pragma once

#include <vector>

#include <outrider/draft/ctc/detail/ctc_network.hpp>
#include <outrider/draft/nn/detail/padded_context.hpp>

namespace outrider {

/// See ctc_frames of groups; `layers` holds the rows of all groups.
[[nodiscard]] OUTRIDER_API CtcFrameScores ctc_frames(const CtcConfig& config, const CtcWeights& weights,
                                                     const CtcTables& tables, const at::Tensor& fused,
                                                     const at::Tensor& committed,
                                                     const std::vector<LayerContext>& layers,
                                                     const PaddedGroups& groups, at::ScalarType compute);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_network-inl.hpp>
#endif
