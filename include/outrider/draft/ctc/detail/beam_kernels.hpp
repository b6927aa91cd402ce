// One level of the CTC beam as two launches, which the compiled library holds; headers alone have tensor operations.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>

#include <outrider/core/detail/export.hpp>

namespace outrider::detail {

/// The prefixes of one level, W of each sequence.
struct BeamStep {
    at::Tensor psi;                    ///< [S, W]
    at::Tensor place, parent, column;  ///< [S, W] int64; place = parent V + column
    at::Tensor entry;                  ///< [S, W, T] where the last token is entered
};

/// Whether `beam_step` and `beam_states` run there.
[[nodiscard]] OUTRIDER_API bool has_beam_kernels(at::Device device);

/// The W best continuations of the prefixes `of` (its psi undefined: the empty ones). `frames` [S T, V + 2] as CtcBeam
/// takes them; `scores` [S P, V] or undefined.
[[nodiscard]] OUTRIDER_API BeamStep beam_step(const at::Tensor& frames, const at::Tensor& scores, const BeamStep& of,
                                              std::int64_t T, std::int64_t width);

/// States of the prediction network of S P prefixes [S P, R]: silu of the sum of three rows of `table` [rows, R],
/// `base` [S] of the text, `last` [S, P] of the last token, and `offset` + second[s][parent], where `second` is [S, Q]
/// and `parent` [S, P] or undefined: 0.
[[nodiscard]] OUTRIDER_API at::Tensor beam_states(const at::Tensor& table, const at::Tensor& base,
                                                  const at::Tensor& second, const at::Tensor& parent,
                                                  const at::Tensor& last, std::int64_t offset);

#ifndef OUTRIDER_COMPILED
inline bool has_beam_kernels(at::Device) { return false; }
inline BeamStep beam_step(const at::Tensor&, const at::Tensor&, const BeamStep&, std::int64_t, std::int64_t) {
    return {};
}
inline at::Tensor beam_states(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                              const at::Tensor&, std::int64_t) {
    return {};
}
#endif

}  // namespace outrider::detail
