#include "train/adamw.hpp"

#include <cmath>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/vector_loops.hpp>

namespace outrider {

namespace {

struct Rates {
    float beta1, beta2, eps, step, decay, keep, scale;  // scale: of the gradient; keep: of the average
};

OUTRIDER_VECTOR_LOOP(void, update,
                     (float* __restrict w, const float* __restrict g, float* __restrict m, float* __restrict v,
                      float* __restrict average, std::int64_t count, const Rates& r),
                     (w, g, m, v, average, count, r)) {
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

AdamW::AdamW(std::vector<at::Tensor> weights, const AdamWOptions& options) : options_(options) {
    state_.weights = std::move(weights);
    for (const at::Tensor& w : state_.weights) {
        require(w.scalar_type() == at::kFloat && w.is_cpu() && w.is_contiguous(),
                "AdamW: weights must be contiguous float32 on the CPU");
        state_.first.push_back(at::zeros_like(w.detach()));
        state_.second.push_back(at::zeros_like(w.detach()));
        state_.average.push_back(w.detach().clone());
    }
}

double AdamW::step(double learning_rate, ThreadTeam& team) {
    double square = 0.0;
    std::vector<at::Tensor> gradients;
    for (at::Tensor& w : state_.weights) {
        gradients.push_back(w.grad().defined() ? w.grad().contiguous() : at::Tensor{});
        if (gradients.back().defined()) square += std::pow(gradients.back().norm().item<double>(), 2);
        w.mutable_grad() = at::Tensor{};
    }
    const double norm = std::sqrt(square);
    if (!std::isfinite(norm)) return norm;
    ++state_.steps;
    const auto t = static_cast<double>(state_.steps);
    const double correct1 = 1.0 - std::pow(options_.beta1, t), correct2 = std::sqrt(1.0 - std::pow(options_.beta2, t));
    for (std::size_t i = 0; i < state_.weights.size(); ++i) {
        if (!gradients[i].defined()) continue;
        const Rates rates{static_cast<float>(options_.beta1),
                          static_cast<float>(options_.beta2),
                          static_cast<float>(options_.eps * correct2),
                          static_cast<float>(learning_rate * correct2 / correct1),
                          static_cast<float>(state_.weights[i].dim() > 1 ? learning_rate * options_.weight_decay : 0.0),
                          static_cast<float>(std::min(options_.ema, (1.0 + t) / (10.0 + t))),
                          static_cast<float>(norm > options_.clip ? options_.clip / norm : 1.0)};
        float* w = state_.weights[i].mutable_data_ptr<float>();
        const float* g = gradients[i].const_data_ptr<float>();
        float *m = state_.first[i].mutable_data_ptr<float>(), *v = state_.second[i].mutable_data_ptr<float>(),
              *a = state_.average[i].mutable_data_ptr<float>();
        const std::int64_t count = state_.weights[i].numel();
        team.run([&](TeamMember& member) {
            const auto mine = member.range(count);
            update(w + mine.begin, g + mine.begin, m + mine.begin, v + mine.begin, a + mine.begin, mine.size(), rates);
        });
    }
    return norm;
}

}  // namespace outrider
