#include "train/train_step.hpp"

#include <ATen/ATen.h>

#include "train/tensor_adamw.hpp"

namespace outrider {

namespace {

class DeviceStep final : public TrainStep {
public:
    DeviceStep(const StepParts& parts, at::Device device)
        : parts_(parts), optimiser_(parts.learner.weights(), parts.optimiser, device) {
        const std::int64_t labels = parts.learner.needs().labels;
        stats_ = at::zeros({2 * labels + 1}, at::TensorOptions().dtype(at::kDouble).device(device));
    }

    void run(std::span<const AnchorGroup> groups, double learning_rate) override {
        const AnchorBatch batch = parts_.batch(groups);
        const TensorLoss loss = parts_.learner.tensor_loss(optimiser_.leaves(), batch);
        const std::vector<at::Tensor> gradients = torch::autograd::grad(
            differentiable(loss.inputs), optimiser_.leaves(), of_differentiable(loss), std::nullopt, false, true);
        const std::int64_t labels = parts_.learner.needs().labels;
        optimiser_.step(gradients, learning_rate, loss.stats.slice(0, labels, 2 * labels).sum());
        stats_.add_(loss.stats);
    }

    StepReport take() override {
        const at::Tensor both = at::cat({stats_, optimiser_.report()}).to(at::kCPU);  // one copy
        const std::int64_t labels = both.numel() - 2;
        stats_.zero_();
        const auto* of_optimiser = both.const_data_ptr<double>() + labels;
        const auto skipped = static_cast<std::int64_t>(of_optimiser[1]);
        StepReport report{read_stats(both.slice(0, 0, labels)), skipped - skipped_, of_optimiser[0]};
        skipped_ = skipped;
        return report;
    }

    LossStats held_out(std::span<const at::Tensor> weights, std::span<const AnchorBatch> batches) override {
        at::Tensor sum = at::zeros_like(stats_);
        for (const AnchorBatch& batch : batches) sum.add_(parts_.learner.tensor_loss(weights, batch).stats);
        return read_stats(sum);
    }
    std::vector<at::Tensor> averages() override { return optimiser_.averages(); }
    OptimiserState state() override { return optimiser_.state(); }
    void restore(const OptimiserState& state) override { optimiser_.restore(state); }

private:
    /// What a network computes without any weight has no gradients to hand on.
    static std::vector<at::Tensor> differentiable(const std::vector<at::Tensor>& inputs) {
        std::vector<at::Tensor> some;
        for (const at::Tensor& input : inputs)
            if (input.requires_grad()) some.push_back(input);
        return some;
    }
    static std::vector<at::Tensor> of_differentiable(const TensorLoss& loss) {
        std::vector<at::Tensor> some;
        for (std::size_t i = 0; i < loss.inputs.size(); ++i)
            if (loss.inputs[i].requires_grad()) some.push_back(loss.gradients[i]);
        return some;
    }

    StepParts parts_;
    TensorAdamW optimiser_;
    at::Tensor stats_;
    std::int64_t skipped_ = 0;
};

}  // namespace

std::unique_ptr<TrainStep> device_step(const StepParts& parts, at::Device device) {
    return std::make_unique<DeviceStep>(parts, device);
}

}  // namespace outrider
