#include "head_network.hpp"

namespace outrider {

void check_heads(std::int64_t heads, double teacher) {
    require(heads > 0 && heads <= 15, "train: {} draft heads, expected 1 to 15", heads);
    require(teacher >= 0 && teacher <= 1, "train: the teacher's share is {}, expected 0 to 1", teacher);
}

std::string name_of(HeadOutput output) {
    return output == HeadOutput::own ? "own" : output == HeadOutput::shared ? "shared" : "target";
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

}  // namespace outrider
