// The part of a training that depends on where it runs: gradients of a batch and a step of the optimiser. Everything
// else (data, schedule, checkpoints, measurements) is the trainer's and knows no device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "train/adamw.hpp"
#include "train/learner.hpp"

namespace outrider {

/// What steps said since they were last asked.
struct StepReport {
    LossStats stats;
    std::int64_t skipped_steps = 0;  ///< whose gradient was not finite
    double gradient_norm = 0.0;      ///< of the last step that was not skipped
};

class TrainStep {
public:
    virtual ~TrainStep() = default;

    virtual void run(std::span<const AnchorGroup> groups, double learning_rate) = 0;
    /// May wait for the device.
    [[nodiscard]] virtual StepReport take() = 0;

    /// Of averaged weights on batches that are not learnt from.
    [[nodiscard]] virtual LossStats held_out(std::span<const at::Tensor> weights,
                                             std::span<const AnchorBatch> batches) = 0;
    /// Copies of the averaged weights, where steps are computed.
    [[nodiscard]] virtual std::vector<at::Tensor> averages() = 0;
    /// On the CPU. To go on with another one: fill its tensors, set its steps and restore it.
    [[nodiscard]] virtual OptimiserState state() = 0;
    virtual void restore(const OptimiserState& state) = 0;
};

struct StepParts {
    const Learner& learner;
    std::function<AnchorBatch(std::span<const AnchorGroup>)> batch;
    AdamWOptions optimiser;
};

/// On the CPU: a batch in parts beside each other, losses and optimiser by vector loops.
[[nodiscard]] std::unique_ptr<TrainStep> host_step(const StepParts& parts, int threads);

/// On any device: a batch at once, losses and optimiser by tensor operations. A step reads nothing back.
[[nodiscard]] std::unique_ptr<TrainStep> device_step(const StepParts& parts, at::Device device);

}  // namespace outrider
