#include "train/train_step.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

namespace outrider {

namespace {

class HostStep final : public TrainStep {
    static constexpr std::size_t kParts = 2;

public:
    HostStep(const StepParts& parts, int threads) : parts_(parts), team_(threads) {
        std::vector<at::Tensor> leaves = parts.learner.weights();
        for (at::Tensor& leaf : leaves) leaf.set_requires_grad(true);
        optimiser_ = std::make_unique<AdamW>(leaves, parts.optimiser);
    }

    void run(std::span<const AnchorGroup> groups, double learning_rate) override {
        report_.stats += differentiate(groups);
        const double norm = optimiser_->step(learning_rate, team_);
        if (std::isfinite(norm))
            report_.gradient_norm = norm;
        else
            ++report_.skipped_steps;
    }
    StepReport take() override {
        const double norm = report_.gradient_norm;
        StepReport report = std::exchange(report_, {});
        report_.gradient_norm = norm;
        return report;
    }
    LossStats held_out(std::span<const at::Tensor> weights, std::span<const AnchorBatch> batches) override {
        LossStats stats;
        for (const AnchorBatch& batch : batches) (void)parts_.learner.loss(weights, batch, stats, team_);
        return stats;
    }
    std::vector<at::Tensor> averages() override {
        std::vector<at::Tensor> copies;
        for (const at::Tensor& average : optimiser_->state().average) copies.push_back(average.clone());
        return copies;
    }
    OptimiserState state() override { return optimiser_->state(); }
    void restore(const OptimiserState& state) override { optimiser_->set_steps(state.steps); }

private:
    /// Gradients of a batch, part by part in parallel: threads meet once a step, not once an operation. The cut does
    /// not depend on the number of threads, so neither does the result.
    LossStats differentiate(std::span<const AnchorGroup> groups) {
        const std::size_t parts = std::min<std::size_t>(kParts, groups.size());
        std::vector<AnchorBatch> batches;
        for (std::size_t i = 0; i < parts; ++i)
            batches.push_back(parts_.batch(groups.subspan(
                i * groups.size() / parts, (i + 1) * groups.size() / parts - i * groups.size() / parts)));
        std::vector<LossStats> stats(parts);
        std::vector<std::vector<at::Tensor>> gradients(parts);
        std::vector<double> share(parts, 0.0);
        team_.run([&](TeamMember& member) {
            const auto mine = member.range(static_cast<std::int64_t>(parts));
            for (auto i = static_cast<std::size_t>(mine.begin); i < static_cast<std::size_t>(mine.end); ++i) {
                ThreadTeam alone(1);
                std::vector<at::Tensor> leaves;
                for (const at::Tensor& weight : optimiser_->weights())
                    leaves.push_back(weight.detach().set_requires_grad(true));
                parts_.learner.loss(leaves, batches[i], stats[i], alone).backward();
                for (const at::Tensor& leaf : leaves) gradients[i].push_back(leaf.grad());
                share[i] = parts_.learner.divisor(stats[i]);
            }
        });
        combine(gradients, share);
        LossStats all;
        for (const LossStats& part : stats) all += part;
        return all;
    }

    /// The parts' mean losses, weighted by what they were divided by, are the batch's.
    void combine(const std::vector<std::vector<at::Tensor>>& gradients, const std::vector<double>& share) {
        double sum = 0.0;
        for (const double part : share) sum += part;
        const at::NoGradGuard no_grad;
        for (std::size_t w = 0; w < optimiser_->weights().size(); ++w) {
            at::Tensor total;
            for (std::size_t i = 0; i < gradients.size(); ++i) {
                if (!gradients[i][w].defined() || sum == 0.0) continue;
                const at::Tensor scaled = gradients[i][w] * (share[i] / sum);
                total = total.defined() ? total.add_(scaled) : scaled;
            }
            optimiser_->weights()[w].mutable_grad() = total;
        }
    }

    StepParts parts_;
    ThreadTeam team_;
    std::unique_ptr<AdamW> optimiser_;
    StepReport report_;
};

}  // namespace

std::unique_ptr<TrainStep> host_step(const StepParts& parts, int threads) {
    return std::make_unique<HostStep>(parts, threads);
}

}  // namespace outrider
