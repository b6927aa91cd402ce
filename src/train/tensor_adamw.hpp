// AdamW as AdamW (adamw.hpp) takes it, for weights on a device: everything lies in one tensor, so that a step is some
// twenty operations whatever the number of weights, and nothing in it waits for the device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "train/adamw.hpp"

namespace outrider {

class TensorAdamW {
public:
    /// `weights`: where training starts; their copies are what is trained.
    TensorAdamW(const std::vector<at::Tensor>& weights, const AdamWOptions& options, at::Device device);

    /// One step with a gradient for each weight, undefined for zeros. A norm that is not finite changes nothing but the
    /// count of skipped steps; `counted` [] is how many labels there were: without any the weights stay.
    void step(const std::vector<at::Tensor>& gradients, double learning_rate, const at::Tensor& counted);

    /// The weights: leaves with gradients, views of the one tensor.
    [[nodiscard]] const std::vector<at::Tensor>& leaves() const noexcept { return leaves_; }
    /// [2] float64: the last finite norm, and steps skipped since the object was made.
    [[nodiscard]] const at::Tensor& report() const noexcept { return report_; }
    /// Copies of the averages, on the device.
    [[nodiscard]] std::vector<at::Tensor> averages() const;

    /// Copies on the CPU, and back from there.
    [[nodiscard]] OptimiserState state() const;
    void restore(const OptimiserState& state);

private:
    /// Parts of a flat tensor in the weights' order and shapes.
    [[nodiscard]] std::vector<at::Tensor> parts(const at::Tensor& flat) const;
    [[nodiscard]] at::Tensor flattened(const std::vector<at::Tensor>& parts) const;

    AdamWOptions options_;
    at::Device device_;
    std::vector<std::size_t> order_;  // matrices first, which alone are decayed
    std::vector<std::int64_t> begin_;
    std::vector<std::vector<std::int64_t>> sizes_;
    std::int64_t decayed_ = 0, all_ = 0;
    at::Tensor weights_, first_, second_, average_;  // [all_] float32
    at::Tensor steps_;                               // [] float64
    at::Tensor report_;
    std::vector<at::Tensor> leaves_;
};

}  // namespace outrider
