// Bodies of medusa_backend.hpp.
#pragma once

#include <outrider/draft/medusa/detail/medusa_backend.hpp>
#include <outrider/draft/nn/detail/operators.hpp>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <utility>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// Tensor operations on any device: the reference for the kernels.
class TensorMedusa final : public MedusaBackend {
public:
    TensorMedusa(const MedusaConfig& config, const MedusaWeights& weights, const TargetHead& head)
        : config_(config), weights_(weights) {
        for (auto& [name, weight] : weights_.named()) *weight = weight->detach().to(at::kFloat);
        if (config.output == HeadOutput::target)
            tables_.output = head.output_rows(draft_ids(config.vocabulary, head.vocabulary))
                                 .to(weights_.heads[0][0].bias.device(), at::kFloat);
    }

    [[nodiscard]] std::size_t weight_bytes() const override {
        return bytes_of(std::as_const(weights_).named()) + tables_.bytes();
    }

    void run(const at::Tensor& features, std::int64_t stride, std::vector<float>& scores) override {
        const at::NoGradGuard no_grad;
        const at::Tensor logits =
            medusa_logits(config_, weights_, tables_, features.to(weights_.heads[0][0].bias.device()), at::kFloat)
                .transpose(0, 1)
                .to(at::kCPU);
        const std::int64_t rows = logits.size(0) * logits.size(1), V = logits.size(2);
        scores.resize(static_cast<std::size_t>(rows * stride));
        at::from_blob(scores.data(), {rows, stride}).slice(1, 0, V).copy_(logits.reshape({rows, V}));
    }

private:
    MedusaConfig config_;
    MedusaWeights weights_;
    TargetTables tables_;
};

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<MedusaBackend> make_medusa_tensors(const MedusaConfig& config,
                                                                   const MedusaWeights& weights,
                                                                   const TargetHead& head) {
    return std::make_unique<detail::TensorMedusa>(config, weights, head);
}

}  // namespace outrider
