// Parts of a decoder layer as one launch each, which the compiled library holds; headers alone have tensor operations.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <outrider/core/detail/export.hpp>

namespace outrider::detail {

/// Whether the two below run there.
[[nodiscard]] OUTRIDER_API bool has_layer_kernels(c10::Device device);

/// Turns queries and keys of heads [N, heads + 2 kv_heads, D] where they stand, and writes keys and values to their
/// slots of `store` [slots, 2 kv_heads, D]. `turns` [positions, 2, 1, D]: cosines, and sines with the sign of their
/// half; `position` and `slot` [N] int64.
OUTRIDER_API void turn_and_store(const at::Tensor& heads, const at::Tensor& store, const at::Tensor& turns,
                                 const at::Tensor& position, const at::Tensor& slot);

/// silu(gate) up of gate_up [N, 2 F]: [N, F].
[[nodiscard]] OUTRIDER_API at::Tensor silu_gate(const at::Tensor& gate_up);

#ifndef OUTRIDER_COMPILED
inline bool has_layer_kernels(c10::Device) { return false; }
inline void turn_and_store(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&) {}
inline at::Tensor silu_gate(const at::Tensor&) { return {}; }
#endif

}  // namespace outrider::detail
