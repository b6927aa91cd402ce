// Cross-entropy of all heads at once. The gradient takes the place of the log-probabilities.
#include "train/tensor_loss.hpp"

#include <ATen/ATen.h>

#include <outrider/core/error.hpp>

namespace outrider {

LossStats read_stats(const at::Tensor& stats) {
    const at::Tensor here = stats.to(at::kCPU);
    const auto* numbers = here.const_data_ptr<double>();
    const std::int64_t U = (here.numel() - 1) / 2;
    LossStats result{{numbers, numbers + U}, {}, static_cast<std::int64_t>(numbers[2 * U])};
    for (std::int64_t k = 0; k < U; ++k) result.count.push_back(static_cast<std::int64_t>(numbers[U + k]));
    return result;
}

TensorLoss label_tensor_loss(const LabelLossBatch& batch, const at::Tensor& weights, double share) {
    const at::NoGradGuard no_grad;
    require(batch.logits.dim() == 3 && batch.labels.size(0) == batch.logits.size(1) &&
                batch.labels.size(1) == batch.logits.size(0) && weights.numel() == batch.logits.size(0),
            "label_tensor_loss: logits [heads, anchors, columns], labels [anchors, heads] and a weight for each head");
    require(share == 0 || batch.teacher.defined(), "label_tensor_loss: a teacher's share needs its logits");
    const auto real = batch.logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor labels = batch.labels.t().to(at::kLong), usable = labels.ge(0);  // [K, A]
    const at::Tensor own = labels.clamp_min(0).unsqueeze(2);
    at::Tensor log_q = batch.logits.to(real).log_softmax(2), teacher;  // [K, A, V]
    const at::Tensor ce = log_q.gather(2, own).squeeze(2).neg().to(at::kDouble);
    at::Tensor loss = ce;
    if (share > 0) {
        teacher = batch.teacher.to(real).log_softmax(2);
        const at::Tensor kl = (teacher.exp() * (teacher - log_q)).sum(2).to(at::kDouble);
        loss = (1.0 - share) * ce + share * kl;
        teacher.exp_();
    }
    const at::Tensor good = usable.logical_and(loss.isfinite()).logical_and(ce.isfinite()), bad = good.logical_not();
    const at::Tensor w = weights.unsqueeze(1);
    const at::Tensor sum = (usable * w).sum();
    const at::Tensor scaled = good * (w / sum.clamp_min(1e-300));  // [K, A]; no label at all: zeros
    const at::Tensor factor = scaled.to(real).unsqueeze(2);
    at::Tensor gradient = log_q.exp_().mul_(factor);
    if (share > 0) gradient.sub_(teacher.mul_(factor * share));
    gradient.scatter_add_(2, own, factor * (share - 1.0));
    gradient.masked_fill_(bad.unsqueeze(2), 0.0);
    const at::Tensor seen = ce.masked_fill(bad, 0.0).sum(1), skipped = usable.logical_and(bad).sum().to(at::kDouble);
    return {(loss.masked_fill(bad, 0.0) * scaled).sum(),
            at::cat({seen, good.sum(1).to(at::kDouble), skipped.unsqueeze(0)}),
            {batch.logits},
            {gradient.to(batch.logits.scalar_type())}};
}

}  // namespace outrider
