// The parts of the CTC drafter's layer that are not matrix products of weights.
#pragma once

#include <ATen/core/Tensor.h>

namespace outrider {

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension.
[[nodiscard]] at::Tensor ctc_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// silu(x[:, :I]) * x[:, I:] of x [rows, 2 I].
[[nodiscard]] at::Tensor ctc_silu_gate(const at::Tensor& x);

/// Attention of M anchors' frames over their common context and each anchor's own frames, all of them.
/// q [M, T, heads, D], k and v [M, T, kv_heads, D]; keys and values [L, kv_heads, D], anchor i sees the first
/// committed[i] of them. Returns [M * T, heads * D].
[[nodiscard]] at::Tensor ctc_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& keys,
                                       const at::Tensor& values, const at::Tensor& committed);

}  // namespace outrider
