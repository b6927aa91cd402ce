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

/// Loshchilov and Hutter 2019, in one pass over the memory. The weights are leaves with gradients.
class AdamW {
public:
    AdamW(std::vector<at::Tensor> weights, const AdamWOptions& options);

    /// One step with the gradients that stand in the weights; they are dropped after it. Returns the gradient's norm. A
    /// norm that is not finite changes nothing.
    double step(double learning_rate, ThreadTeam& team);

    [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }
    void set_steps(std::int64_t steps) noexcept { steps_ = steps; }  ///< when state is read back
    [[nodiscard]] std::vector<at::Tensor>& weights() noexcept { return weights_; }
    [[nodiscard]] std::vector<at::Tensor>& first_moments() noexcept { return first_; }
    [[nodiscard]] std::vector<at::Tensor>& second_moments() noexcept { return second_; }
    [[nodiscard]] std::vector<at::Tensor>& averages() noexcept { return average_; }

private:
    std::vector<at::Tensor> weights_, first_, second_, average_;
    AdamWOptions options_;
    std::int64_t steps_ = 0;
};

}  // namespace outrider
