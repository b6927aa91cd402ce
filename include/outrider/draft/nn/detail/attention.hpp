// The parts of the CTC drafter's layer that are not matrix products of weights. All differentiable.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>

namespace outrider {

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension of x [rows, n], as `type`.
[[nodiscard]] at::Tensor ctc_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type);

/// silu(x[:, :I]) * x[:, I:] of x [rows, 2 I].
[[nodiscard]] at::Tensor ctc_silu_gate(const at::Tensor& x);

/// Rotary positions: x [rows, heads, 2 half], cos and sin [rows, 1, half]; the first half of a head turns with the
/// second.
[[nodiscard]] at::Tensor ctc_rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// Attention of M anchors' frames over their common context and each anchor's own frames, all of them.
/// q [M, T, heads, D], k and v [M, T, kv_heads, D]; keys and values [L, kv_heads, D], anchor i sees the first
/// committed[i] of them. Returns [M * T, heads * D].
[[nodiscard]] at::Tensor ctc_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       const at::Tensor& keys, const at::Tensor& values, const at::Tensor& committed);
[[nodiscard]] at::Tensor ctc_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                 const at::Tensor& keys, const at::Tensor& values,
                                                 const at::Tensor& committed);

namespace detail {

/// Sizes, and the two layouts of per-query tensors: by key head (for the context) and by anchor (for the own frames).
struct AnchorShape {
    std::int64_t M, T, kv, G, D, L;

    static AnchorShape of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& keys) {
        return {q.size(0), q.size(1), k.size(2), q.size(2) / k.size(2), q.size(3), keys.size(0)};
    }

    [[nodiscard]] at::Tensor by_head(const at::Tensor& x) const {
        return x.reshape({M, T, kv, G, D}).permute({2, 0, 1, 3, 4}).reshape({kv, M * T * G, D});
    }
    [[nodiscard]] at::Tensor by_anchor(const at::Tensor& x) const {
        return x.reshape({M, T, kv, G, D}).permute({0, 2, 1, 3, 4}).reshape({M * kv, T * G, D});
    }
    /// Both back to [M, T, kv, G, D], added.
    [[nodiscard]] at::Tensor joined(const at::Tensor& head, const at::Tensor& anchor) const {
        const at::Tensor from_heads = head.view({kv, M, T, G, D}).permute({1, 2, 0, 3, 4});
        return from_heads.add(anchor.view({M, kv, T, G, D}).permute({0, 2, 1, 3, 4}));
    }
    /// [M, T, kv, D] to [M * kv, T, D] and back.
    [[nodiscard]] at::Tensor frames(const at::Tensor& x) const {
        return x.permute({0, 2, 1, 3}).reshape({M * kv, T, D});
    }
    [[nodiscard]] at::Tensor unframed(const at::Tensor& x) const { return x.view({M, kv, T, D}).permute({0, 2, 1, 3}); }
};

}  // namespace detail

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/attention-inl.hpp>
#endif
