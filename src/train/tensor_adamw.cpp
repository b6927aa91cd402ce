#include "train/tensor_adamw.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace outrider {

TensorAdamW::TensorAdamW(const std::vector<at::Tensor>& weights, const AdamWOptions& options, at::Device device)
    : options_(options), device_(device), begin_(weights.size()) {
    for (const bool matrices : {true, false}) {
        for (std::size_t i = 0; i < weights.size(); ++i) {
            if ((weights[i].dim() > 1) != matrices) continue;
            order_.push_back(i);
            begin_[i] = all_;
            all_ += weights[i].numel();
        }
        if (matrices) decayed_ = all_;
    }
    for (const at::Tensor& weight : weights) sizes_.push_back(weight.sizes().vec());
    weights_ = flattened(weights).detach();
    first_ = at::zeros_like(weights_), second_ = at::zeros_like(weights_), average_ = weights_.clone();
    steps_ = at::zeros({}, weights_.options().dtype(at::kDouble));
    report_ = at::zeros({2}, steps_.options());
    leaves_ = parts(weights_);
    for (at::Tensor& leaf : leaves_) leaf = leaf.detach().set_requires_grad(true);
}

void TensorAdamW::step(const std::vector<at::Tensor>& gradients, double learning_rate, const at::Tensor& counted) {
    const at::NoGradGuard no_grad;
    at::Tensor g = flattened(gradients);
    const at::Tensor norm = g.norm().to(at::kDouble), finite = norm.isfinite();
    const at::Tensor go = finite.logical_and(counted.gt(0)), held = go.logical_not();
    report_.select(0, 0).copy_(at::where(finite, norm, report_.select(0, 0)));
    report_.select(0, 1).add_(finite.logical_not());
    steps_.add_(finite);
    const at::Tensor t = steps_.clamp_min(1.0), when = go.to(at::kDouble);
    const at::Tensor correct1 = 1.0 - at::pow(options_.beta1, t), correct2 = (1.0 - at::pow(options_.beta2, t)).sqrt();
    const at::Tensor size = (when * learning_rate * correct2 / correct1).to(at::kFloat);
    const at::Tensor eps = (options_.eps * correct2).to(at::kFloat);
    const at::Tensor keep = ((t + 1.0) / (t + 10.0)).clamp_max(options_.ema);
    g.mul_((options_.clip / norm.clamp_min(options_.clip)).to(at::kFloat)).masked_fill_(held, 0.0);
    first_.lerp_(g, (when * (1.0 - options_.beta1)).to(at::kFloat));
    second_.lerp_(g.mul_(g), (when * (1.0 - options_.beta2)).to(at::kFloat));
    weights_.slice(0, 0, decayed_).mul_((1.0 - when * (learning_rate * options_.weight_decay)).to(at::kFloat));
    weights_.sub_(first_.div(second_.sqrt().add_(eps)).mul_(size));
    average_.lerp_(weights_, (when * (1.0 - keep)).to(at::kFloat));
}

std::vector<at::Tensor> TensorAdamW::averages() const { return parts(average_.clone()); }

OptimiserState TensorAdamW::state() const {
    const auto copied = [this](const at::Tensor& flat) { return parts(flat.to(at::kCPU)); };
    return {copied(weights_), copied(first_), copied(second_), copied(average_),
            steps_.to(at::kCPU).item<std::int64_t>()};
}

void TensorAdamW::restore(const OptimiserState& state) {
    weights_.copy_(flattened(state.weights).detach());
    first_.copy_(flattened(state.first)), second_.copy_(flattened(state.second));
    average_.copy_(flattened(state.average));
    steps_.fill_(static_cast<double>(state.steps));
}

std::vector<at::Tensor> TensorAdamW::parts(const at::Tensor& flat) const {
    std::vector<at::Tensor> all;
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
        const std::int64_t count = c10::multiply_integers(sizes_[i]);
        all.push_back(flat.slice(0, begin_[i], begin_[i] + count).view(sizes_[i]));
    }
    return all;
}

at::Tensor TensorAdamW::flattened(const std::vector<at::Tensor>& parts) const {
    std::vector<at::Tensor> flat;
    for (const std::size_t i : order_)
        flat.push_back(parts[i].defined()
                           ? parts[i].detach().reshape({-1})
                           : at::zeros({c10::multiply_integers(sizes_[i])}, at::TensorOptions().device(device_)));
    return at::cat(flat).to(device_, at::kFloat);
}

}  // namespace outrider
