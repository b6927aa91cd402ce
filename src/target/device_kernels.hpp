// What of a device pass the library's own kernels do (src/cuda), as operators of the tensor library.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>

namespace outrider {

/// Whether they run on the device.
[[nodiscard]] bool device_kernels_run(at::Device device);

/// Whether the pass is to use them: where the device has them and the environment says OUTRIDER_KERNELS=1. They have
/// not run on a card yet, so that nobody gets them unasked.
[[nodiscard]] bool device_kernels_wanted(at::Device device);

/// How rows' queries, keys and values become what attention reads; see cuda::RopeStore. Undefined tensors: not at all.
struct PlacedRows {
    at::Tensor turns;           ///< [positions, 2, 1, D] cosines, and sines with the sign of their half
    at::Tensor position, slot;  ///< [N] int64
    at::Tensor norm;            ///< [heads + kv_heads, D]
    at::Tensor query_scale;     ///< [positions, 1, 1]
    std::int64_t rotated = 0;   ///< dimensions that turn
    bool whole = false;         ///< the norm is of all queries, and of all keys
    double eps = 0;
};

/// Changes queries and keys of qkv [N, heads + 2 kv_heads, D] where they stand, and writes keys and values to their
/// slots of `store` [slots, 2 kv_heads, D].
void place_rows(const at::Tensor& qkv, const at::Tensor& store, const PlacedRows& rows);

/// The rows of a forward and what each sees, int64 each; see cuda::SeenRows.
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

/// stream += scale branch, normed by `branch_norm` first; each may be undefined. Returns norm(stream) weight, or the
/// stream itself where `weight` is undefined. stream and branch [N, H].
[[nodiscard]] at::Tensor norm_add(at::Tensor& stream, const at::Tensor& branch, const at::Tensor& branch_norm,
                                  const at::Tensor& weight, double scale, double eps);

/// The column [N] int64 of each row's largest logit, of equals the lowest; -1 where the row holds NaN. f32 [N, V].
[[nodiscard]] at::Tensor largest_columns(const at::Tensor& logits);

/// What sampling picks of each row [N] int64, of all tokens: see cuda::PickRow. `key` [N] int64, `temperature` [N] f64.
[[nodiscard]] at::Tensor picked_columns(const at::Tensor& logits, const at::Tensor& key, const at::Tensor& temperature);

}  // namespace outrider
