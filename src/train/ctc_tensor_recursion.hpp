// The recursion of ctc_recursion.hpp over all anchors at once. Along the frames it is linear: with s the probability of
// staying and b that of a blank,
//     rn = S f / Q,  S[t, j] = s[j + 1] .. s[t] for j <= t,     rb = B rn,  B[t, j] = b[j + 1] .. b[t] for j < t,
// so that the step from one label to the next is one product with a matrix N that all labels compute at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include <outrider/train/train.hpp>

namespace outrider {

/// Logs and masks in float64; A anchors, U labels, T frames, M tokens of a teacher. Those of labels that cannot be used
/// are finite and count for nothing.
struct CtcTensorInput {
    CtcLossKind kind = CtcLossKind::prefix;
    at::Tensor enter, stay;  ///< [A, U, T] log pi_t(y_k | y_<k) and log pi_t(y_k | y_<=k)
    at::Tensor blank;        ///< [A, T] log b_t
    at::Tensor usable;       ///< [A, U] 1 or 0
    at::Tensor differs;      ///< [A, U] 1 where y_k is not y_{k-1}
    at::Tensor weights;      ///< [A, U] w_k, what a teacher leaves of it; for ctc 1; 0 where not usable

    at::Tensor other_enter = {};    ///< [A, U, M, T] log pi_t(v | y_<k), undefined without a teacher
    at::Tensor other_differs = {};  ///< [A, U, M] 1 where v is not y_{k-1}
    at::Tensor other_weights = {};  ///< [A, U, M] w_k s
};

struct CtcTensorResult {
    at::Tensor loss;   ///< [A] of each anchor, not finite where a label has probability 0
    at::Tensor log_q;  ///< [A, U] log q(y_k | y_<k), 0 where not usable
    /// Derivatives of each anchor's loss by the inputs.
    at::Tensor d_enter, d_stay, d_blank, d_other;
};

[[nodiscard]] CtcTensorResult ctc_tensor_recursion(const CtcTensorInput& in);

}  // namespace outrider
