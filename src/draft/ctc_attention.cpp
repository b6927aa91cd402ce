#include "ctc_attention.hpp"

#include <cmath>

namespace outrider {

at::Tensor ctc_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
    return x * (x.square().mean(-1, true) + eps).rsqrt() * weight;
}

at::Tensor ctc_silu_gate(const at::Tensor& x) {
    const auto halves = x.chunk(2, -1);
    return at::silu(halves[0]) * halves[1];
}

at::Tensor ctc_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& keys,
                         const at::Tensor& values, const at::Tensor& committed) {
    const std::int64_t M = q.size(0), T = q.size(1), heads = q.size(2), D = q.size(3), kv = k.size(2), G = heads / kv, L = keys.size(0);
    const double scale = 1.0 / std::sqrt(static_cast<double>(D));
    const at::Tensor grouped = q.reshape({M, T, kv, G, D}) * scale;
    // Rows of one key head: (anchor, frame, query head of the group).
    const at::Tensor over_context = grouped.permute({2, 0, 1, 3, 4}).reshape({kv, M * T * G, D});
    const at::Tensor over_frames = grouped.permute({0, 2, 1, 3, 4}).reshape({M * kv, T * G, D});
    const at::Tensor own = at::bmm(over_frames, k.permute({0, 2, 3, 1}).reshape({M * kv, D, T}))
                               .view({M, kv, T * G, T}).permute({1, 0, 2, 3}).reshape({kv, M * T * G, T});
    const at::Tensor hidden = at::arange(L, committed.options()).unsqueeze(0).ge(committed.unsqueeze(1));  // [M, L]
    const at::Tensor context = at::bmm(over_context, keys.permute({1, 2, 0}))
                                   .view({kv, M, T * G, L})
                                   .masked_fill(hidden.view({1, M, 1, L}), -INFINITY)
                                   .view({kv, M * T * G, L});
    const at::Tensor p = at::softmax(at::cat({context, own}, -1), -1);
    const at::Tensor from_context = at::bmm(p.slice(2, 0, L), values.permute({1, 0, 2}))
                                        .view({kv, M, T, G, D}).permute({1, 2, 0, 3, 4});
    const at::Tensor p_own = p.slice(2, L).view({kv, M, T * G, T}).permute({1, 0, 2, 3}).reshape({M * kv, T * G, T});
    const at::Tensor from_frames = at::bmm(p_own, v.permute({0, 2, 1, 3}).reshape({M * kv, T, D}))
                                       .view({M, kv, T, G, D}).permute({0, 2, 1, 3, 4});
    return (from_context + from_frames).reshape({M * T, heads * D});
}

}  // namespace outrider
