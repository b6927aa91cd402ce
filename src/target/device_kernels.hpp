// What of a device pass the library's own kernels do (src/cuda), as operators of the tensor library.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>

namespace outrider {

/// Whether the pass is to use them: where the device has them and the environment says OUTRIDER_KERNELS=1. They have
/// not run on a card yet, so that nobody gets them unasked.
[[nodiscard]] bool device_kernels_wanted(at::Device device);

/// Turns queries and keys of qkv [N, heads + 2 kv_heads, D] where they stand, and writes keys and values to their slots
/// of `store` [slots, 2 kv_heads, D]. `turns` [positions, 2, 1, D]: cosines, and sines with the sign of their half;
/// `position` and `slot` [N]; `rotated` dimensions turn.
void rope_store(const at::Tensor& qkv, const at::Tensor& store, const at::Tensor& turns, const at::Tensor& position,
                const at::Tensor& slot, std::int64_t rotated);

/// The rows of a forward and what each sees, int64 each; see cuda::TreeRows.
struct AttendedRows {
    at::Tensor place, lane, committed, count, first, bits, table;
    std::int64_t tree_rows = 0, words = 0;
    std::int64_t positions = 0;  ///< most that a row looks at
};

/// Attention of all rows, [N, heads D]. `qkv` and `store` as above; scores are scale q k, with cap > 0 cap tanh(score /
/// cap).
[[nodiscard]] at::Tensor tree_attention(const at::Tensor& qkv, const at::Tensor& store, const AttendedRows& rows,
                                        double scale, double cap);

/// act(gate) up of gate_up [N, 2 F]: [N, F]; SiLU, or the tanh form of GELU.
[[nodiscard]] at::Tensor gated(const at::Tensor& gate_up, bool gelu);

}  // namespace outrider
