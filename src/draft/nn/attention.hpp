// The parts of the CTC drafter's layer that are not matrix products of weights. All differentiable.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

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

}  // namespace outrider
