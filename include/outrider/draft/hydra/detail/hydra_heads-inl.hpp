// Hydra's heads in tensor operations, cut where their inputs meet, for many paths of one text.
#pragma once

#include <utility>
#include <vector>

#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/draft/nn/detail/aten.hpp>

namespace outrider::detail {

/// Heads whose first matrix is cut where its inputs meet: what the text adds to all heads is computed once a round.
class HydraHeads {
public:
    /// `scale`: of all embeddings that come, beside the config's.
    HydraHeads(const HydraConfig& config, HydraWeights weights, at::Tensor output, double scale)
        : config_(config),
          scale_(config.embedding_scale * scale),
          output_(std::move(weights.output)),
          output_bias_(std::move(weights.output_bias)) {
        if (config.output == HeadOutput::target) output_ = {std::move(output)};
        for (auto& blocks : weights.heads) others_.emplace_back(blocks.begin() + 1, blocks.end());
        first_ = cut(weights, &HydraWeights::Block::weight, &HydraWeights::Block::bias);
        if (config.residual == HydraResidual::matrix)
            residual_ = cut(weights, &HydraWeights::Block::residual, &HydraWeights::Block::residual_bias);
    }

    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = 0;
        for (const First* first : {&first_, &residual_}) {
            for (const at::Tensor& path : first->by_path) sum += path.nbytes();
            if (first->bias.defined())
                sum += first->by_ground.nbytes() + first->by_pending.nbytes() + first->bias.nbytes();
        }
        for (const auto* list : {&output_, &output_bias_})
            for (const at::Tensor& matrix : *list) sum += matrix.nbytes();
        for (const auto& blocks : others_)
            for (const HydraWeights::Block& block : blocks) sum += block.weight.nbytes() + block.bias.nbytes();
        return sum;
    }

    /// `ground` and `pending` [S, H]: g_{n-1} and the pending tokens' embeddings.
    void start(const at::Tensor& ground, const at::Tensor& pending) {
        ground_ = ground;
        for (First* first : {&first_, &residual_})
            if (first->bias.defined())
                first->base =
                    aten::addmm(first->bias, ground, first->by_ground.t()).addmm_(pending, first->by_pending.t());
        if (joint())
            base_scores_ = config_.output_bias ? aten::addmm(output_bias_[0], ground, output_[0].t())
                                               : aten::mm(ground, output_[0].t());
    }

    /// Scores [S P, V] of head `head` after paths of as many drafted tokens, whose embeddings are `path`
    /// [S P, head H]; undefined for the first head, where P = 1.
    [[nodiscard]] at::Tensor scores(std::int64_t head, const at::Tensor& path) const {
        at::Tensor y = aten::silu(of_first(first_, head, path));
        if (joint()) return sum_of(base_scores_, y, output_[0]);
        if (residual_.bias.defined())
            y.add_(of_first(residual_, head, path));
        else
            y = (y.view({ground_.size(0), -1, config_.hidden}) + ground_.unsqueeze(1)).view({-1, config_.hidden});
        for (const HydraWeights::Block& block : others_[static_cast<std::size_t>(head)])
            y = y + aten::silu(aten::addmm(block.bias, y, block.weight.t()));
        const auto which = config_.output == HeadOutput::own ? static_cast<std::size_t>(head) : 0;
        const at::Tensor& rows = output_[which];
        return config_.output_bias ? aten::addmm(output_bias_[which], y, rows.t()) : aten::mm(y, rows.t());
    }

private:
    struct First {
        at::Tensor by_ground, by_pending, bias;  // [K H, H], [K H, H] and [K H], scales in them
        std::vector<at::Tensor> by_path;         // [K] of [H, i H]
        at::Tensor base;                         // [S, K H] of a round
    };

    /// Whether a state is g + silu(..), so that the output rows meet g once a round.
    [[nodiscard]] bool joint() const {
        return config_.residual == HydraResidual::feature && config_.blocks == 1 && config_.output != HeadOutput::own;
    }

    [[nodiscard]] First cut(const HydraWeights& weights, at::Tensor HydraWeights::Block::* matrix,
                            at::Tensor HydraWeights::Block::* bias) const {
        const std::int64_t H = config_.hidden;
        std::vector<at::Tensor> ground, pending, biases;
        First first;
        for (const auto& blocks : weights.heads) {
            const at::Tensor& all = blocks[0].*matrix;
            ground.push_back(all.slice(1, 0, H)), pending.push_back(all.slice(1, H, 2 * H));
            biases.push_back(blocks[0].*bias);
            first.by_path.push_back(all.slice(1, 2 * H) * scale_);
        }
        first.by_ground = aten::cat(ground) * config_.feature_scale;
        first.by_pending = aten::cat(pending) * scale_;
        first.bias = aten::cat(biases);
        return first;
    }

    [[nodiscard]] at::Tensor of_first(const First& first, std::int64_t head, const at::Tensor& path) const {
        const at::Tensor base = first.base.narrow(1, head * config_.hidden, config_.hidden);
        return head == 0 ? base : sum_of(base, path, first.by_path[static_cast<std::size_t>(head)]);
    }

    /// base [S, X] of each sequence + rows [S P, n] weight^T.
    [[nodiscard]] static at::Tensor sum_of(const at::Tensor& base, const at::Tensor& rows, const at::Tensor& weight) {
        const std::int64_t S = base.size(0), X = base.size(1), n = rows.size(1);
        if (S == 1 || S == rows.size(0)) return aten::addmm(base, rows, weight.t());
        return aten::baddbmm(base.unsqueeze(1), rows.view({S, -1, n}), weight.t().expand({S, n, X})).view({-1, X});
    }

    HydraConfig config_;
    double scale_;
    std::vector<at::Tensor> output_, output_bias_;  // one, or one a head
    std::vector<std::vector<HydraWeights::Block>> others_;
    First first_, residual_;
    at::Tensor ground_, base_scores_;  // of a round: [S, H], [S, V]
};

}  // namespace outrider::detail
