// Hydra++'s prefix layer over all groups of a batch at once.
#pragma once

#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/draft/nn/detail/padded_context.hpp>

namespace outrider {

/// See hydra_ground of groups, with a prefix layer; `context` holds the rows of all groups.
[[nodiscard]] OUTRIDER_API at::Tensor hydra_ground(const HydraConfig& config, const HydraWeights& weights,
                                                   const at::Tensor& features, const at::Tensor& committed,
                                                   const LayerContext& context, const PaddedGroups& groups,
                                                   at::ScalarType compute);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/hydra/detail/hydra_network-inl.hpp>
#endif
