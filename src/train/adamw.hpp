// AdamW with clipping and a moving average of the weights, over float32 tensors on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include <outrider/core/detail/thread_team.hpp>

namespace outrider {

struct AdamWOptions {
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double weight_decay = 0.01;  ///< of matrices; vectors are not decayed
    double clip = 1.0;           ///< largest norm of the whole gradient
    double ema = 0.999;          ///< decay of the moving average; smaller over the first steps
};

/// What an optimiser knows, in the order of the weights: contiguous float32 on the CPU.
struct OptimiserState {
    std::vector<at::Tensor> weights, first, second, average;
    std::int64_t steps = 0;
};

/// Loshchilov and Hutter 2019, in one pass over the memory. The weights are leaves with gradients.
class AdamW {
public:
    AdamW(std::vector<at::Tensor> weights, const AdamWOptions& options);

    /// One step with the gradients that stand in the weights; they are dropped after it. Returns the gradient's norm. A
    /// norm that is not finite changes nothing.
    double step(double learning_rate, ThreadTeam& team);

    [[nodiscard]] std::int64_t steps() const noexcept { return state_.steps; }
    [[nodiscard]] std::vector<at::Tensor>& weights() noexcept { return state_.weights; }
    /// The tensors are its own: to be written as they are, or filled when a run goes on.
    [[nodiscard]] const OptimiserState& state() const noexcept { return state_; }
    void set_steps(std::int64_t steps) noexcept { state_.steps = steps; }

private:
    OptimiserState state_;
    AdamWOptions options_;
};

}  // namespace outrider
