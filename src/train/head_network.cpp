#include "head_network.hpp"

#include <outrider/train/detail/train_ranges.hpp>

namespace outrider {

void check_heads(std::int64_t heads, std::int64_t blocks, double teacher) {
    require_in(ranges::kDraftHeads, heads, "train", "the number of draft heads");
    require_in(ranges::kBlocks, blocks, "train", "the number of blocks");
    require_in(ranges::kTeacher, teacher, "train", "the teacher's share");
}

at::Tensor heads_loss(const at::Tensor& logits, const AnchorBatch& batch, const TargetTables& tables,
                      const std::vector<double>& label_weights, double teacher, at::ScalarType compute,
                      LossStats& stats, ThreadTeam& team) {
    at::Tensor wanted;
    if (teacher > 0) {
        // Features are final-norm states, so the target's own scores are one product; draft tokens only.
        const at::NoGradGuard no_grad;
        wanted = mixed_linear(batch.ahead.flatten(0, 1), tables.output, compute).view(logits.sizes());
    }
    return label_loss({logits.contiguous(), batch.labels, wanted}, {label_weights, teacher}, stats, team);
}

RankTally::RankTally(std::int64_t heads)
    : hits_(static_cast<std::size_t>(heads), std::vector<std::int64_t>(kRanks, 0)), count_(hits_.size(), 0) {}

void RankTally::add(const at::Tensor& logits, const at::Tensor& labels) {
    const at::Tensor columns = labels.t().to(at::kLong).unsqueeze(2);  // [K, A, 1]
    const at::Tensor own = logits.gather(2, columns.clamp_min(0));
    const at::Tensor ranks = logits.gt(own).sum(2).contiguous();  // tokens above the label
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
