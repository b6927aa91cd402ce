// Bodies of medusa_backend.hpp.
#pragma once

#include <outrider/draft/medusa/detail/medusa_backend.hpp>
#include <outrider/draft/nn/detail/operators.hpp>
#include <outrider/draft/nn/detail/rank_scores.hpp>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>

#include <utility>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// Tensor operations on any device, all heads at once: the reference for the kernels.
class TensorMedusa final : public MedusaBackend {
public:
    TensorMedusa(const MedusaConfig& config, const MedusaWeights& weights, const TargetHead& head) {
        const auto floats = [](const at::Tensor& weight) { return weight.detach().to(at::kFloat); };
        for (std::int64_t j = 0; j < config.blocks; ++j) {
            std::vector<at::Tensor> weight, bias;
            for (const auto& blocks : weights.heads) {
                weight.push_back(floats(blocks[static_cast<std::size_t>(j)].weight).t());
                bias.push_back(floats(blocks[static_cast<std::size_t>(j)].bias).unsqueeze(0));
            }
            blocks_.push_back({at::stack(weight), at::stack(bias)});
        }
        std::vector<at::Tensor> output;
        for (const at::Tensor& matrix : weights.output) output.push_back(floats(matrix).t());
        if (config.output == HeadOutput::target)
            output.push_back(head.output_rows(draft_ids(config.vocabulary, head.vocabulary))
                                 .to(blocks_[0].weight.device(), at::kFloat)
                                 .t());
        output_ = output.size() == 1 ? output[0] : at::stack(output);
    }

    [[nodiscard]] std::size_t weight_bytes() const override {
        std::size_t sum = output_.nbytes();
        for (const Block& block : blocks_) sum += block.weight.nbytes() + block.bias.nbytes();
        return sum;
    }

    void run(const at::Tensor& features, std::int64_t stride, std::vector<float>& scores) override {
        const at::NoGradGuard no_grad;
        const at::Tensor rows = logits(features).to(at::kCPU);
        scores.resize(static_cast<std::size_t>(rows.size(0) * stride));
        at::from_blob(scores.data(), {rows.size(0), stride}).slice(1, 0, rows.size(1)).copy_(rows);
    }

    bool rank(const at::Tensor& features, std::int64_t ranks, std::span<const TokenId> vocabulary,
              std::vector<RankedTokens>& ranked) override {
        const at::NoGradGuard no_grad;
        rank_scores(logits(features), ranks, vocabulary, ranked);
        return true;
    }

private:
    struct Block {
        at::Tensor weight;  // [K, H, H] transposed
        at::Tensor bias;    // [K, 1, H]
    };

    /// [S K, V], heads within sequences.
    [[nodiscard]] at::Tensor logits(const at::Tensor& features) const {
        const std::int64_t K = blocks_[0].weight.size(0), H = blocks_[0].weight.size(1), S = features.size(0);
        at::Tensor x = features.to(blocks_[0].weight.options()).unsqueeze(0).expand({K, S, H});
        for (const Block& block : blocks_) x = x + at::silu(at::baddbmm(block.bias, x, block.weight));
        const at::Tensor all =
            output_.dim() == 2 ? at::mm(x.reshape({K * S, H}), output_).view({K, S, -1}) : at::bmm(x, output_);
        return all.transpose(0, 1).reshape({S * K, all.size(2)});
    }

    std::vector<Block> blocks_;
    at::Tensor output_;  // [H, V] of all heads, or [K, H, V]
};

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<MedusaBackend> make_medusa_tensors(const MedusaConfig& config,
                                                                   const MedusaWeights& weights,
                                                                   const TargetHead& head) {
    return std::make_unique<detail::TensorMedusa>(config, weights, head);
}

}  // namespace outrider
