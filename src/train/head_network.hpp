// What Medusa and Hydra have in common in training: heads over one draft vocabulary, and labels one by one.
#pragma once

#include <outrider/train/label_loss.hpp>

#include "network_learner.hpp"

namespace outrider {

/// Throws Error unless the sizes go together.
void check_heads(std::int64_t heads, double teacher);

/// "own", "shared" or "target".
[[nodiscard]] std::string name_of(HeadOutput output);

/// Label loss of [K, A, V] logits; the teacher's logits, where it has a share, from the features at the labels.
[[nodiscard]] at::Tensor heads_loss(const at::Tensor& logits, const AnchorBatch& batch, const TargetTables& tables,
                                    const std::vector<double>& label_weights, double teacher, at::ScalarType compute,
                                    LossStats& stats, ThreadTeam& team);

}  // namespace outrider
