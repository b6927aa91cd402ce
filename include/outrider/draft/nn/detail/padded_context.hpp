// Layers over all groups of a training batch at once: their contexts and their anchors are filled up to the longest, so
// that attention is four products whatever the number of groups. For devices, where launches are what small products
// cost; on the CPU the groups of layers.hpp, one after another, fit its caches.
#pragma once

#include <ATen/core/Tensor.h>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/nn/detail/layers.hpp>

namespace outrider {

/// G groups of at most M anchors over contexts of at most L rows.
struct PaddedGroups {
    at::Tensor context;  ///< [G, L] int64 rows of the batch's context; behind a group's last one any of them
    at::Tensor anchors;  ///< [G, M] int64 anchors; behind a group's last one any of them
    at::Tensor place;    ///< [A] int64 of each anchor in the G * M
};

/// See layer_rows of groups; `context` holds the rows of all groups.
[[nodiscard]] OUTRIDER_API at::Tensor layer_rows(const LayerSizes& sizes, const LayerWeights& weights,
                                                 const at::Tensor& x, const at::Tensor& positions,
                                                 const at::Tensor& seen, const LayerContext& context,
                                                 const PaddedGroups& groups, at::ScalarType compute);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/padded_context-inl.hpp>
#endif
