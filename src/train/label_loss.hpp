// Cross-entropy of drafting heads (Medusa's, Hydra's) as one differentiable operation, with a teacher's share.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include <outrider/core/detail/thread_team.hpp>
#include "train/loss_stats.hpp"

namespace outrider {

struct LabelLossOptions {
    std::vector<double> weights;  ///< [K] w_k, by label
    double teacher = 0.0;         ///< share s of the teacher's term, 0 to 1
};

/// The tensors of one batch: A anchors, K heads, V columns of the draft vocabulary.
struct LabelLossBatch {
    at::Tensor logits;   ///< [K, A, V] bfloat16, float or double
    at::Tensor labels;   ///< [A, K] int32 columns; negative: that head learns nothing from that anchor
    at::Tensor teacher;  ///< [K, A, V] like logits: the target's own logits there; undefined where s is 0
};

/// Weighted mean over anchors and heads with a label: the sum of
///     w_k ((1 - s) ce + s kl),  ce = -log softmax(logits)[label],  kl = sum_c t_c (log t_c - log softmax(logits)_c),
/// t = softmax(teacher) at temperature 1, divided by the sum of w_k over the labels there. `stats` holds ce, whatever
/// the share. A row whose loss is not finite gives no gradient and is counted. The gradient is computed with the loss,
/// one row at a time: beside it no array of the logits' size exists. CPU tensors only.
[[nodiscard]] at::Tensor label_loss(const LabelLossBatch& batch, const LabelLossOptions& options, LossStats& stats,
                                    ThreadTeam& team);

}  // namespace outrider
