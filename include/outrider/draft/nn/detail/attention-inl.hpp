// Bodies of attention.hpp: tensor operations, differentiable by themselves, on every device and in every type. On the
// CPU the compiled library has loops beside them (layer_loops.hpp).
#pragma once

#include <outrider/draft/nn/detail/attention.hpp>

#include <cmath>

#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/layer_loops.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE at::Tensor ctc_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                                        at::ScalarType type) {
    const at::Tensor fast = detail::loop_rms_norm(x, weight, eps, type);
    if (fast.defined()) return fast;
    return (x * (x.square().mean(-1, true) + eps).rsqrt() * weight).to(type);
}

OUTRIDER_INLINE at::Tensor ctc_silu_gate(const at::Tensor& x) {
    const at::Tensor fast = detail::loop_silu_gate(x);
    if (fast.defined()) return fast;
    const auto halves = x.chunk(2, -1);
    return aten::silu(halves[0]) * halves[1];
}

OUTRIDER_INLINE at::Tensor ctc_rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    const at::Tensor fast = detail::loop_rotate(x, cos, sin);
    if (fast.defined()) return fast;
    const auto halves = x.to(cos.scalar_type()).chunk(2, -1);
    return aten::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1).to(x.scalar_type());
}

OUTRIDER_INLINE at::Tensor ctc_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                   const at::Tensor& keys, const at::Tensor& values,
                                                   const at::Tensor& committed) {
    const detail::AnchorShape s = detail::AnchorShape::of(q, k, keys);
    const at::Tensor scaled = q / std::sqrt(static_cast<double>(s.D));
    const std::int64_t rows = s.M * s.T * s.G;
    const at::Tensor own = aten::bmm(s.by_anchor(scaled), s.frames(k).transpose(1, 2))
                               .view({s.M, s.kv, s.T * s.G, s.T})
                               .permute({1, 0, 2, 3})
                               .reshape({s.kv, rows, s.T});
    const at::Tensor hidden = aten::arange(s.L, committed.options()).unsqueeze(0).ge(committed.unsqueeze(1));  // [M, L]
    const at::Tensor context = aten::bmm(s.by_head(scaled), keys.permute({1, 2, 0}))
                                   .view({s.kv, s.M, s.T * s.G, s.L})
                                   .masked_fill(hidden.view({1, s.M, 1, s.L}), -INFINITY)
                                   .view({s.kv, rows, s.L});
    const at::Tensor p = aten::softmax(aten::cat({context, own}, -1), -1);
    const at::Tensor p_own =
        p.slice(2, s.L).view({s.kv, s.M, s.T * s.G, s.T}).permute({1, 0, 2, 3}).reshape({s.M * s.kv, s.T * s.G, s.T});
    return s.joined(aten::bmm(p.slice(2, 0, s.L), values.permute({1, 0, 2})), aten::bmm(p_own, s.frames(v)))
        .reshape({s.M * s.T, s.kv * s.G * s.D});
}

OUTRIDER_INLINE at::Tensor ctc_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                         const at::Tensor& keys, const at::Tensor& values,
                                         const at::Tensor& committed) {
    const at::Tensor fast = detail::loop_attention(q, k, v, keys, values, committed);
    return fast.defined() ? fast : ctc_attention_reference(q, k, v, keys, values, committed);
}

}  // namespace outrider
