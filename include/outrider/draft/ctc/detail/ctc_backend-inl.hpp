// Bodies of ctc_backend.hpp: tensor operations on any device, the reference for the kernels.
#pragma once

#include <outrider/draft/ctc/detail/ctc_backend.hpp>

#include <ATen/core/grad_mode.h>

#include <utility>

#include <outrider/draft/ctc/detail/ctc_lanes-inl.hpp>
#include <outrider/draft/ctc/detail/ctc_prediction-inl.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/aten_cache.hpp>
#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

struct TensorCtcCache final : CtcCache {
    explicit TensorCtcCache(std::size_t count) : layers(count) {}
    std::vector<AtenSlots> layers;
    at::Tensor last_fused;  // [H] u_{n-1}; undefined while nothing is committed
};

class TensorCtc final : public CtcBackend {
public:
    TensorCtc(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head)
        : config_(config), weights_(weights), compute_(at::kFloat), head_(head) {
        for (at::Tensor* other :
             {&weights_.prefix_in, &weights_.prefix_bias, &weights_.prefix_narrow, &weights_.prefix_out})
            other->reset();  // the prediction network holds its own
        for (auto& [name, weight] : weights_.named()) *weight = weight->detach().to(at::kFloat);
        const at::Device device = weights_.fuse.device();
        tables_.output = head.output_rows(config.vocabulary).to(device, compute_);
        options_ = at::TensorOptions().dtype(at::kLong).device(device);
    }

    /// The target's rows of the draft vocabulary [V, H].
    [[nodiscard]] const at::Tensor& output() const { return tables_.output; }

    [[nodiscard]] std::size_t weight_bytes() const override {
        return bytes_of(std::as_const(weights_).named()) + tables_.bytes();
    }

    [[nodiscard]] std::unique_ptr<CtcCache> make_cache() const override {
        return std::make_unique<TensorCtcCache>(weights_.layers.size());
    }

    void run(std::span<CtcRound> rounds, bool frames, std::span<const float> roots, CtcRoundScores& scores) override {
        const at::NoGradGuard no_grad;
        take_up(rounds);
        if (!frames) return;
        std::vector<at::Tensor> fused;
        std::vector<std::int64_t> committed;
        std::vector<std::vector<CtcAnchors>> groups(weights_.layers.size());
        for (const CtcRound& round : rounds) {
            auto& cache = static_cast<TensorCtcCache&>(*round.cache);
            committed.push_back(round.committed);
            fused.push_back(cache.last_fused.defined() ? cache.last_fused : first_fused(round.pending));
            const at::Tensor empty = aten::empty({0, config_.kv_heads, config_.head_dim}, weights_.fuse.options());
            for (std::size_t l = 0; l < groups.size(); ++l) {
                const AtenSlots& slots = cache.layers[l];
                groups[l].push_back({slots.size > 0 ? slots.keys.slice(0, 0, slots.size) : empty,
                                     slots.size > 0 ? slots.values.slice(0, 0, slots.size) : empty, 1});
            }
        }
        const CtcFrameScores result =
            ctc_frames(config_, weights_, tables_, aten::stack(fused),
                       at::tensor(committed, at::kLong).to(options_.device()), groups, compute_);
        copy(result.gate, scores.gate);
        const at::Tensor states =
            at::tensor(at::ArrayRef<float>(roots.data(), roots.size())).view({-1, config_.hidden});
        copy(aten::cat({result.logits, mixed_linear(states.to(options_.device()), tables_.output, compute_)}),
             scores.logits);
    }

private:
    static void copy(const at::Tensor& from, std::vector<float>& to) {
        const at::Tensor flat = from.to(at::kCPU, at::kFloat).contiguous();
        to.assign(flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel());
    }

    /// [rows, H] embeddings as the network takes them.
    [[nodiscard]] at::Tensor embed(const std::vector<TokenId>& tokens) const {
        return (head_.embed(tokens) * config_.embedding_scale).to(options_.device(), compute_);
    }

    /// u_{-1}: nothing is committed yet, so there is no feature.
    [[nodiscard]] at::Tensor first_fused(TokenId pending) const {
        const at::Tensor input =
            aten::cat({embed({pending}), aten::zeros({1, ctc_feature_width(config_)}, weights_.fuse.options())}, -1);
        return aten::linear(input, weights_.fuse).squeeze(0);
    }

    void take_up(std::span<CtcRound> rounds) {
        std::vector<TokenId> next;
        std::vector<std::int64_t> positions;
        std::vector<at::Tensor> features;
        for (const CtcRound& round : rounds) {
            next.insert(next.end(), round.next.begin(), round.next.end());
            const auto rows = static_cast<std::int64_t>(round.next.size());
            for (std::int64_t j = round.committed - rows; j < round.committed; ++j) positions.push_back(j);
            if (rows > 0) features.push_back(round.features.to(options_.device(), at::kFloat));
        }
        if (next.empty()) return;
        // The rows' own embeddings stand in for the table: row i is token i.
        CtcTables tables{embed(next), {}};
        const auto rows = static_cast<std::int64_t>(next.size());
        const CtcContext context =
            ctc_context(config_, weights_, tables, aten::arange(rows, options_), aten::cat(features),
                        at::tensor(positions, at::kLong).to(options_.device()), compute_);
        std::int64_t begin = 0;
        for (const CtcRound& round : rounds) {
            const std::int64_t end = begin + static_cast<std::int64_t>(round.next.size());
            if (end == begin) continue;
            auto& cache = static_cast<TensorCtcCache&>(*round.cache);
            for (std::size_t l = 0; l < cache.layers.size(); ++l)
                cache.layers[l].append(context.layers[l].keys.slice(0, begin, end),
                                       context.layers[l].values.slice(0, begin, end));
            cache.last_fused = context.fused[end - 1];
            begin = end;
        }
    }

    CtcConfig config_;
    CtcWeights weights_;
    at::ScalarType compute_;
    TargetHead head_;
    CtcTables tables_;
    at::TensorOptions options_;
};

}  // namespace detail

OUTRIDER_INLINE CtcBodies make_ctc_lanes(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head,
                                         const CtcLaneOptions& options) {
    const at::NoGradGuard no_grad;
    auto backend = std::make_unique<detail::LaneCtc>(config, weights, head, options);
    std::unique_ptr<CtcPrediction> prediction;  // of trees that are not best-first
    if (config.conditioning == CtcConditioning::prefix)
        prediction =
            std::make_unique<detail::TensorPrediction>(config, weights, head, backend->output().to(at::kFloat));
    return {std::move(backend), std::move(prediction)};
}

OUTRIDER_INLINE CtcBodies make_ctc_tensors(const CtcConfig& config, CtcWeights weights, const TargetHead& head,
                                           const CtcLaneOptions& options) {
    if (!weights.fuse.device().is_cpu()) return make_ctc_lanes(config, weights, head, options);
    auto backend = std::make_unique<detail::TensorCtc>(config, weights, head);
    std::unique_ptr<CtcPrediction> prediction;
    if (config.conditioning == CtcConditioning::prefix)
        prediction = std::make_unique<detail::TensorPrediction>(config, weights, head, backend->output());
    return {std::move(backend), std::move(prediction)};
}

}  // namespace outrider
