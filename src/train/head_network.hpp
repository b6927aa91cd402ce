// What Medusa and Hydra have in common in training: heads over one draft vocabulary, and labels one by one.
#pragma once

#include "train/label_loss.hpp"

#include "network_learner.hpp"

namespace outrider {

/// Throws Error unless the sizes go together.
void check_heads(std::int64_t heads, std::int64_t blocks, double teacher);

/// Label loss of [K, A, V] logits; the teacher's logits, where it has a share, from the features at the labels.
[[nodiscard]] at::Tensor heads_loss(const at::Tensor& logits, const AnchorBatch& batch, const TargetTables& tables,
                                    const std::vector<double>& label_weights, double teacher, at::ScalarType compute,
                                    LossStats& stats, ThreadTeam& team);

/// The same in tensor operations.
[[nodiscard]] TensorLoss heads_tensor_loss(const at::Tensor& logits, const AnchorBatch& batch,
                                           const TargetTables& tables, const at::Tensor& label_weights, double teacher,
                                           at::ScalarType compute);

/// How often the text's token was the head's r-th.
class RankTally {
public:
    explicit RankTally(std::int64_t heads);

    /// [K, A, V] logits and [A, K] labels, of which negative ones are left out.
    void add(const at::Tensor& logits, const at::Tensor& labels);

    /// [K][kRanks] shares of the labels there; 0 for a head without any.
    [[nodiscard]] std::vector<std::vector<double>> shares() const;

    static constexpr std::int64_t kRanks = 32;

private:
    std::vector<std::vector<std::int64_t>> hits_;  // [K][kRanks]
    std::vector<std::int64_t> count_;              // [K]
};

}  // namespace outrider
