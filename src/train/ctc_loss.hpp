// The CTC objective of a batch of anchors as one differentiable operation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include <outrider/core/detail/thread_team.hpp>
#include "train/ctc_recursion.hpp"
#include "train/loss_stats.hpp"

namespace outrider {

struct CtcLossOptions {
    CtcLossKind kind = CtcLossKind::prefix;
    std::vector<double> weights;  ///< [U] w_k, by label
};

/// The tensors of one batch. Frames t = 1..T over the V columns of the draft vocabulary.
struct CtcLossBatch {
    at::Tensor logits;  ///< [A * T, V] bfloat16, float or double: the frames' scores a_t(c)
    at::Tensor gate;    ///< [A * T] float (double with double logits): p(blank) = sigmoid(gate)
    at::Tensor prefix;  ///< [A * P, V] like logits, or undefined: what the drafted prefix of length 0..P-1 adds,
                        ///< s_l(c); P is U for the prefix loss, U + 1 for ctc (see prefix_rows)
    at::Tensor labels;  ///< [A, U] int32 columns y_1..y_U; negative from the first unusable label on

    /// What a teacher wants beside the labels, prefix loss only; undefined: nothing. See CtcRecursion::Input.
    at::Tensor others = {};        ///< [A, U, M] int32 columns
    at::Tensor other_shares = {};  ///< [A, U, M] float, at least 0; the sum over M at most 1
};

/// Prefix lengths that the objective asks for.
[[nodiscard]] inline std::int64_t prefix_rows(CtcLossKind kind, std::int64_t labels) {
    return labels + (kind == CtcLossKind::ctc ? 1 : 0);
}

/// Weighted mean of the anchors' losses: sum over anchors and labels of -w_k log q (with a teacher: of what its shares
/// make of that), divided by the sum of w_k over the labels there (for ctc: by the number of labels). `stats` holds
/// -log q of the labels, teacher or not. pi_t(c | l) = sigmoid(-gate) softmax_c(a_t(c) + s_l(c)). Labels
/// that T frames cannot hold (one frame each, one more for a repeat) end an anchor's usable labels. An anchor whose
/// loss is not finite gives no gradient and is counted.
///
/// The gradient is computed with the loss, one anchor at a time: because exp(a + s) = exp(a) exp(s), the normalisers
/// are products of two small matrices and no [A, T, P, V] array exists (reference: Graves et al. 2006; the split after
/// transducers' prediction networks, Graves 2012). CPU tensors only.
[[nodiscard]] at::Tensor ctc_loss(const CtcLossBatch& batch, const CtcLossOptions& options, LossStats& stats,
                                  ThreadTeam& team);

}  // namespace outrider
