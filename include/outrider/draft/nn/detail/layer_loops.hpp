// Bodies that the compiled library has for parts of a decoder layer, with derivatives of their own: loops for bfloat16
// and float32 on the CPU, which training's speed needs. Headers alone have none: tensor operations run.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/nn/detail/aten.hpp>

namespace outrider::detail {

/// mixed_linear where an operand is trained.
[[nodiscard]] OUTRIDER_API at::Tensor mixed_linear_training(const at::Tensor& x, const at::Tensor& weight,
                                                            at::ScalarType compute);

/// ctc_rms_norm, ctc_silu_gate, ctc_rotate and ctc_attention; undefined where there is no loop for these operands.
[[nodiscard]] OUTRIDER_API at::Tensor loop_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                                                    at::ScalarType type);
[[nodiscard]] OUTRIDER_API at::Tensor loop_silu_gate(const at::Tensor& x);
[[nodiscard]] OUTRIDER_API at::Tensor loop_rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);
[[nodiscard]] OUTRIDER_API at::Tensor loop_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                     const at::Tensor& keys, const at::Tensor& values,
                                                     const at::Tensor& committed);

#ifndef OUTRIDER_COMPILED
inline at::Tensor mixed_linear_training(const at::Tensor& x, const at::Tensor& weight, at::ScalarType compute) {
    return aten::linear(x.to(compute), weight.to(compute));
}
inline at::Tensor loop_rms_norm(const at::Tensor&, const at::Tensor&, double, at::ScalarType) { return {}; }
inline at::Tensor loop_silu_gate(const at::Tensor&) { return {}; }
inline at::Tensor loop_rotate(const at::Tensor&, const at::Tensor&, const at::Tensor&) { return {}; }
inline at::Tensor loop_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&) {
    return {};
}
#endif

}  // namespace outrider::detail
