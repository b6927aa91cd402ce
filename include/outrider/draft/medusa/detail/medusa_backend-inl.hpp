// Bodies of medusa_backend.hpp.
#pragma once

#include <outrider/draft/medusa/detail/medusa_backend.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/device_products.hpp>
#include <outrider/draft/nn/detail/operation_graphs.hpp>
#include <outrider/draft/nn/detail/rank_scores.hpp>
#include <outrider/draft/nn/detail/target_tables.hpp>

#include <ATen/core/grad_mode.h>

#include <utility>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// Tensor operations on any device, all heads at once: the reference for the kernels.
class TensorMedusa final : public MedusaBackend {
public:
    TensorMedusa(const MedusaConfig& config, const MedusaWeights& weights, const TargetHead& head)
        : options_(options_of(weights, head)), runs_(options_.device()) {
        const auto typed = [&](const at::Tensor& weight) { return weight.detach().to(options_); };
        for (std::int64_t j = 0; j < config.blocks; ++j) {
            std::vector<at::Tensor> weight, bias;
            for (const auto& blocks : weights.heads) {
                weight.push_back(typed(blocks[static_cast<std::size_t>(j)].weight).t());
                bias.push_back(typed(blocks[static_cast<std::size_t>(j)].bias).unsqueeze(0));
            }
            blocks_.push_back({aten::stack(weight), aten::stack(bias)});
        }
        std::vector<at::Tensor> output;
        for (const at::Tensor& matrix : weights.output) output.push_back(typed(matrix).t());
        if (config.output == HeadOutput::target) output.push_back(shared_output(head, config.vocabulary, options_).t());
        output_ = output.size() == 1 ? output[0] : aten::stack(output);
        const bool lent = head.output.defined() && output_.is_alias_of(head.output);
        bytes_ = lent ? 0 : output_.nbytes();
        for (const Block& block : blocks_) bytes_ += block.weight.nbytes() + block.bias.nbytes();
    }

    [[nodiscard]] std::size_t weight_bytes() const override { return bytes_; }

    void run(const at::Tensor& features, std::int64_t stride, std::vector<float>& scores) override {
        const at::NoGradGuard no_grad;
        const at::Tensor rows = logits(features).to(at::kCPU);
        scores.resize(static_cast<std::size_t>(rows.size(0) * stride));
        at::from_blob(scores.data(), {rows.size(0), stride}).slice(1, 0, rows.size(1)).copy_(rows);
    }

    bool rank(const at::Tensor& features, std::int64_t ranks, std::span<const TokenId> vocabulary,
              std::vector<RankedTokens>& ranked) override {
        const at::NoGradGuard no_grad;
        const std::pair<std::int64_t, std::int64_t> shape{features.size(0), ranks};
        at::Tensor& rows = runs_.inputs(shape);
        if (!rows.defined()) rows = aten::empty(features.sizes(), options_);
        rows.copy_(features, true);
        take_ranked(runs_.run(shape, [&] { return ranked_there(logits(rows), ranks); }), vocabulary, ranked);
        return true;
    }

private:
    struct Block {
        at::Tensor weight;  // [K, H, H] transposed
        at::Tensor bias;    // [K, 1, H]
    };

    static at::TensorOptions options_of(const MedusaWeights& weights, const TargetHead& head) {
        const at::Device device = weights.heads[0][0].bias.device();
        return at::TensorOptions().device(device).dtype(draft_type(head, device));
    }

    /// [S K, V] f32, heads within sequences.
    [[nodiscard]] at::Tensor logits(const at::Tensor& features) const {
        const std::int64_t K = blocks_[0].weight.size(0), H = blocks_[0].weight.size(1), S = features.size(0);
        at::Tensor x = features.to(options_).unsqueeze(0).expand({K, S, H});
        for (const Block& block : blocks_) x = x + aten::silu(aten::baddbmm(block.bias, x, block.weight));
        if (output_.dim() == 2) return product_in_f32(x.transpose(0, 1).reshape({S * K, H}), output_.t());
        const bool sums = x.is_cuda() && x.scalar_type() != at::kFloat;
        const at::Tensor all = sums ? aten::bmm(x, output_, at::kFloat) : aten::bmm(x, output_).to(at::kFloat);
        return all.transpose(0, 1).reshape({S * K, all.size(2)});
    }

    at::TensorOptions options_;
    std::vector<Block> blocks_;
    at::Tensor output_;  // [H, V] of all heads, or [K, H, V]
    ShapedRuns<std::pair<std::int64_t, std::int64_t>, at::Tensor, at::Tensor> runs_;  // by sequences and ranks
    std::size_t bytes_ = 0;
};

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<MedusaBackend> make_medusa_tensors(const MedusaConfig& config,
                                                                   const MedusaWeights& weights,
                                                                   const TargetHead& head) {
    return std::make_unique<detail::TensorMedusa>(config, weights, head);
}

}  // namespace outrider
