#include "head_network.hpp"

#include <outrider/train/detail/train_ranges.hpp>

namespace outrider {

void check_heads(std::int64_t heads, std::int64_t blocks, double teacher) {
    require_in(ranges::kDraftHeads, heads, "train", "the number of draft heads");
    require_in(ranges::kBlocks, blocks, "train", "the number of blocks");
    require_in(ranges::kTeacher, teacher, "train", "the teacher's share");
}

namespace {

/// The target's own scores [K, A, V] at the labels; draft tokens only. Features are final-norm states, so they are one
/// product. Undefined where the teacher has no share.
at::Tensor teacher_scores(const at::Tensor& logits, const AnchorBatch& batch, const TargetTables& tables,
                          double teacher, at::ScalarType compute) {
    if (teacher == 0) return {};
    const at::NoGradGuard no_grad;
    return mixed_linear(batch.ahead.flatten(0, 1), tables.output, compute).view(logits.sizes());
}

}  // namespace

at::Tensor heads_loss(const at::Tensor& logits, const AnchorBatch& batch, const TargetTables& tables,
                      const std::vector<double>& label_weights, double teacher, at::ScalarType compute,
                      LossStats& stats, ThreadTeam& team) {
    const at::Tensor wanted = teacher_scores(logits, batch, tables, teacher, compute);
    return label_loss({logits.contiguous(), batch.labels, wanted}, {label_weights, teacher}, stats, team);
}

TensorLoss heads_tensor_loss(const at::Tensor& logits, const AnchorBatch& batch, const TargetTables& tables,
                             const at::Tensor& label_weights, double teacher, at::ScalarType compute) {
    const at::Tensor wanted = teacher_scores(logits, batch, tables, teacher, compute);
    return label_tensor_loss({logits, batch.labels, wanted}, label_weights, teacher);
}

RankTally::RankTally(std::int64_t heads)
    : hits_(static_cast<std::size_t>(heads), std::vector<std::int64_t>(kRanks, 0)), count_(hits_.size(), 0) {}

void RankTally::add(const at::Tensor& logits, const at::Tensor& wanted) {
    const at::Tensor columns = wanted.t().to(at::kLong).unsqueeze(2);  // [K, A, 1]
    const at::Tensor own = logits.gather(2, columns.clamp_min(0));
    const at::Tensor ranks = logits.gt(own).sum(2).to(at::kCPU).contiguous();  // tokens above the label
    const at::Tensor labels = wanted.to(at::kCPU, at::kInt).contiguous();
    for (std::size_t k = 0; k < hits_.size(); ++k)
        for (std::int64_t a = 0; a < labels.size(0); ++a) {
            const auto head = static_cast<std::int64_t>(k);
            if (labels.const_data_ptr<std::int32_t>()[a * labels.size(1) + head] < 0) continue;
            const std::int64_t rank = ranks.const_data_ptr<std::int64_t>()[head * labels.size(0) + a];
            ++count_[k];
            if (rank < kRanks) ++hits_[k][static_cast<std::size_t>(rank)];
        }
}

std::vector<std::vector<double>> RankTally::shares() const {
    std::vector<std::vector<double>> shares;
    for (std::size_t k = 0; k < hits_.size(); ++k) {
        shares.emplace_back();
        for (const std::int64_t hits : hits_[k])
            shares.back().push_back(count_[k] > 0 ? static_cast<double>(hits) / static_cast<double>(count_[k]) : 0.0);
    }
    return shares;
}

}  // namespace outrider
