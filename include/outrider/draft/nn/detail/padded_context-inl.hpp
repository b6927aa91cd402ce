// Bodies of padded_context.hpp.
#pragma once

#include <outrider/draft/nn/detail/padded_context.hpp>

#include <cmath>

#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/attention.hpp>
#include <outrider/draft/nn/detail/layers-inl.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// ctc_attention of all groups: q [A, T, heads, D], k and v [A, T, kv_heads, D], `context` [N, kv_heads, D].
inline at::Tensor padded_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const LayerContext& context, const PaddedGroups& groups, const at::Tensor& seen) {
    const std::int64_t G = groups.context.size(0), L = groups.context.size(1), M = groups.anchors.size(1), B = G * M;
    const std::int64_t T = q.size(1), kv = k.size(2), n = q.size(2) / kv, D = q.size(3);
    const at::Tensor all = groups.anchors.flatten(), rows = groups.context.flatten();
    const at::Tensor scaled = (q / std::sqrt(static_cast<double>(D))).index_select(0, all).view({G, M, T, kv, n, D});
    const auto frames = [&](const at::Tensor& x) { return x.index_select(0, all).permute({0, 2, 1, 3}); };
    const auto contexts = [&](const at::Tensor& x) {
        return x.to(q.scalar_type())
            .index_select(0, rows)
            .view({G, L, kv, D})
            .permute({0, 2, 1, 3})
            .reshape({G * kv, L, D});
    };
    const at::Tensor hidden =
        aten::arange(L, seen.options()).ge(seen.index_select(0, all).unsqueeze(1)).view({G, 1, M, 1, L});
    const at::Tensor by_context = aten::bmm(scaled.permute({0, 3, 1, 2, 4, 5}).reshape({G * kv, M * T * n, D}),
                                            contexts(context.keys).transpose(1, 2))
                                      .view({G, kv, M, T * n, L})
                                      .masked_fill(hidden, -INFINITY);
    const at::Tensor by_own = aten::bmm(scaled.permute({0, 1, 3, 2, 4, 5}).reshape({B * kv, T * n, D}),
                                        frames(k).reshape({B * kv, T, D}).transpose(1, 2))
                                  .view({G, M, kv, T * n, T})
                                  .permute({0, 2, 1, 3, 4});
    const at::Tensor p = aten::softmax(aten::cat({by_context, by_own}, -1), -1);
    const at::Tensor of_context =
        aten::bmm(p.slice(4, 0, L).reshape({G * kv, M * T * n, L}), contexts(context.values)).view({G, kv, M, T, n, D});
    const at::Tensor of_own =
        aten::bmm(p.slice(4, L).permute({0, 2, 1, 3, 4}).reshape({B * kv, T * n, T}), frames(v).reshape({B * kv, T, D}))
            .view({G, M, kv, T, n, D});
    return (of_context.permute({0, 2, 3, 1, 4, 5}) + of_own.permute({0, 1, 3, 2, 4, 5}))
        .reshape({B, T * kv * n * D})
        .index_select(0, groups.place)
        .view({groups.place.size(0) * T, kv * n * D});
}

}  // namespace detail

OUTRIDER_INLINE at::Tensor layer_rows(const LayerSizes& sizes, const LayerWeights& weights, const at::Tensor& x,
                                      const at::Tensor& positions, const at::Tensor& seen, const LayerContext& context,
                                      const PaddedGroups& groups, at::ScalarType compute) {
    const auto attend = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return detail::padded_attention(q, k, v, context, groups, seen);
    };
    return detail::layer_rows_by(sizes, weights, x, positions, seen.size(0), compute, attend);
}

}  // namespace outrider
