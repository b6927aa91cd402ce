// Bodies of hydra_backend.hpp: tensor operations on any device, the reference for the kernels.
#pragma once

#include <outrider/draft/hydra/detail/hydra_backend.hpp>

#include <ATen/core/grad_mode.h>

#include <utility>

#include <outrider/draft/hydra/detail/hydra_lanes-inl.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/aten_cache.hpp>
#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

struct TensorHydraCache final : HydraCache, AtenSlots {};

class TensorHydra final : public HydraBackend {
public:
    TensorHydra(const HydraConfig& config, const HydraWeights& weights, const TargetHead& head)
        : config_(config), weights_(weights), head_(head) {
        for (auto& [name, weight] : weights_.named()) *weight = weight->detach().to(at::kFloat);
        device_ = weights_.heads[0][0].bias.device();
        if (config.output == HeadOutput::target)
            tables_.output = head.output_rows(draft_ids(config.vocabulary, head.vocabulary)).to(device_, at::kFloat);
    }

    [[nodiscard]] std::size_t weight_bytes() const override {
        return bytes_of(std::as_const(weights_).named()) + tables_.bytes();
    }

    [[nodiscard]] std::unique_ptr<HydraCache> make_cache() const override {
        return std::make_unique<TensorHydraCache>();
    }

    void take_up(std::span<const HydraRound> rounds, bool draft) override {
        const at::NoGradGuard no_grad;
        if (config_.prefix_layer) extend(rounds);
        if (!draft) return;
        std::vector<at::Tensor> newest;
        std::vector<std::int64_t> committed;
        std::vector<ContextGroup> groups;
        for (const HydraRound& round : rounds) {
            newest.push_back(round.features[round.features.size(0) - 1].to(device_));
            committed.push_back(round.committed);
            if (!config_.prefix_layer) continue;
            const auto& cache = static_cast<const TensorHydraCache&>(*round.cache);
            groups.push_back({cache.keys.slice(0, 0, cache.size - 1), cache.values.slice(0, 0, cache.size - 1), 1});
        }
        ground_ = hydra_ground(config_, weights_, aten::stack(newest), at::tensor(committed, at::kLong).to(device_),
                               groups, at::kFloat);
    }

    void scores(std::span<const PathRow> rows, float* out, std::int64_t stride) override {
        const at::NoGradGuard no_grad;
        by_head(rows, [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
            std::vector<std::int64_t> sequences;
            std::vector<TokenId> tokens;
            for (const PathRow& row :
                 rows.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))) {
                sequences.push_back(static_cast<std::int64_t>(row.sequence));
                tokens.insert(tokens.end(), row.path.begin(), row.path.end());
            }
            const at::Tensor embedded = (head_.embed(tokens).to(device_, at::kFloat) * config_.embedding_scale)
                                            .view({end - begin, (head + 1) * config_.hidden});
            const at::Tensor ground = ground_.index_select(0, at::tensor(sequences, at::kLong).to(device_));
            const at::Tensor states = hydra_state(config_, weights_, head, ground, embedded, at::kFloat);
            const at::Tensor result = hydra_scores(config_, weights_, tables_, head, states, at::kFloat).to(at::kCPU);
            at::from_blob(out + begin * stride, {end - begin, stride}).slice(1, 0, result.size(1)).copy_(result);
        });
    }

private:
    /// All new rows of the round in one pass.
    void extend(std::span<const HydraRound> rounds) {
        std::vector<at::Tensor> features;
        std::vector<std::int64_t> positions;
        for (const HydraRound& round : rounds) {
            features.push_back(round.features.to(device_));
            for (std::int64_t j = round.committed - round.features.size(0); j < round.committed; ++j)
                positions.push_back(j);
        }
        const LayerContext context = hydra_context(config_, weights_, aten::cat(features),
                                                   at::tensor(positions, at::kLong).to(device_), at::kFloat);
        std::int64_t begin = 0;
        for (const HydraRound& round : rounds) {
            const std::int64_t end = begin + round.features.size(0);
            static_cast<TensorHydraCache&>(*round.cache)
                .append(context.keys.slice(0, begin, end), context.values.slice(0, begin, end));
            begin = end;
        }
    }

    HydraConfig config_;
    HydraWeights weights_;
    TargetHead head_;
    TargetTables tables_;
    at::Device device_ = at::kCPU;
    at::Tensor ground_;  // [S, H]
};

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<HydraBackend> make_hydra_lanes(const HydraConfig& config, const HydraWeights& weights,
                                                               const TargetHead& head, std::int64_t lane_bytes) {
    const at::NoGradGuard no_grad;
    return std::make_unique<detail::LaneHydra>(config, weights, head, lane_bytes);
}

OUTRIDER_INLINE std::unique_ptr<HydraBackend> make_hydra_tensors(const HydraConfig& config, const HydraWeights& weights,
                                                                 const TargetHead& head, std::int64_t lane_bytes) {
    if (!weights.heads[0][0].bias.device().is_cpu()) return make_hydra_lanes(config, weights, head, lane_bytes);
    return std::make_unique<detail::TensorHydra>(config, weights, head);
}

}  // namespace outrider
