#include "train/adamw.hpp"

#include <cmath>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/vector_loops.hpp>

namespace outrider {

namespace {

struct Rates {
    float beta1, beta2, eps, step, decay, keep, scale;  // scale: of the gradient; keep: of the average
};

OUTRIDER_CLONES void update(float* __restrict w, const float* __restrict g, float* __restrict m, float* __restrict v,
                            float* __restrict average, std::int64_t count, const Rates& r) {
    const Rates rates = r;
    for (std::int64_t i = 0; i < count; ++i) {
        const float gradient = g[i] * rates.scale;
        m[i] = rates.beta1 * m[i] + (1.0F - rates.beta1) * gradient;
        v[i] = rates.beta2 * v[i] + (1.0F - rates.beta2) * gradient * gradient;
        w[i] -= rates.decay * w[i] + rates.step * m[i] / (__builtin_sqrtf(v[i]) + rates.eps);
        average[i] = rates.keep * average[i] + (1.0F - rates.keep) * w[i];
    }
}

}  // namespace

AdamW::AdamW(std::vector<at::Tensor> weights, const AdamWOptions& options)
    : weights_(std::move(weights)), options_(options) {
    for (const at::Tensor& w : weights_) {
        require(w.scalar_type() == at::kFloat && w.is_cpu() && w.is_contiguous(),
                "AdamW: weights must be contiguous float32 on the CPU");
        first_.push_back(at::zeros_like(w.detach()));
        second_.push_back(at::zeros_like(w.detach()));
        average_.push_back(w.detach().clone());
    }
}

double AdamW::step(double learning_rate, ThreadTeam& team) {
    double square = 0.0;
    std::vector<at::Tensor> gradients;
    for (at::Tensor& w : weights_) {
        gradients.push_back(w.grad().defined() ? w.grad().contiguous() : at::Tensor{});
        if (gradients.back().defined()) square += std::pow(gradients.back().norm().item<double>(), 2);
        w.mutable_grad() = at::Tensor{};
    }
    const double norm = std::sqrt(square);
    if (!std::isfinite(norm)) return norm;
    ++steps_;
    const auto t = static_cast<double>(steps_);
    const double correct1 = 1.0 - std::pow(options_.beta1, t), correct2 = std::sqrt(1.0 - std::pow(options_.beta2, t));
    for (std::size_t i = 0; i < weights_.size(); ++i) {
        if (!gradients[i].defined()) continue;
        const Rates rates{static_cast<float>(options_.beta1),
                          static_cast<float>(options_.beta2),
                          static_cast<float>(options_.eps * correct2),
                          static_cast<float>(learning_rate * correct2 / correct1),
                          static_cast<float>(weights_[i].dim() > 1 ? learning_rate * options_.weight_decay : 0.0),
                          static_cast<float>(std::min(options_.ema, (1.0 + t) / (10.0 + t))),
                          static_cast<float>(norm > options_.clip ? options_.clip / norm : 1.0)};
        float* w = weights_[i].mutable_data_ptr<float>();
        const float* g = gradients[i].const_data_ptr<float>();
        float *m = first_[i].mutable_data_ptr<float>(), *v = second_[i].mutable_data_ptr<float>(),
              *a = average_[i].mutable_data_ptr<float>();
        const std::int64_t count = weights_[i].numel();
        team.run([&](TeamMember& member) {
            const auto mine = member.range(count);
            update(w + mine.begin, g + mine.begin, m + mine.begin, v + mine.begin, a + mine.begin, mine.size(), rates);
        });
    }
    return norm;
}

}  // namespace outrider
