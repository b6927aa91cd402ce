// Hydra's heads and prefix layer on a device: a beam over paths of one length, and no copy back but the trees'.
#pragma once

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/remainder.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/draft/hydra/detail/hydra_backend.hpp>
#include <outrider/draft/hydra/detail/hydra_heads-inl.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>
#include <outrider/draft/nn/detail/lane_layers.hpp>
#include <outrider/draft/nn/detail/operators.hpp>

namespace outrider::detail {

struct LaneHydraCache final : HydraCache {
    explicit LaneHydraCache(std::shared_ptr<LaneLayers> of)
        : layers(std::move(of)), lane(layers ? layers->take_lane() : 0) {}
    ~LaneHydraCache() override {
        if (layers) layers->give_lane(lane);
    }
    LaneHydraCache(const LaneHydraCache&) = delete;
    LaneHydraCache& operator=(const LaneHydraCache&) = delete;

    std::shared_ptr<LaneLayers> layers;
    std::int64_t lane;
};

class LaneHydra final : public HydraBackend {
public:
    LaneHydra(const HydraConfig& config, HydraWeights weights, const TargetHead& head)
        : config_(config), head_(head), vocabulary_(draft_ids(config.vocabulary, head.vocabulary)) {
        for (auto& [name, weight] : weights.named()) *weight = weight->detach().to(at::kFloat);
        options_ = weights.heads[0][0].bias.options();
        if (config.prefix_layer)
            layers_ = std::make_shared<LaneLayers>(layer_sizes(config), std::span(&weights.prefix, 1), options_);
        prefix_norm_ = weights.prefix_norm;
        at::Tensor output;
        if (config.output == HeadOutput::target) output = head.output_rows(vocabulary_).to(options_);
        bytes_ = config.prefix_layer ? bytes_of({{"qkv", &weights.prefix.qkv},
                                                 {"attn_out", &weights.prefix.attn_out},
                                                 {"gate_up", &weights.prefix.gate_up},
                                                 {"down", &weights.prefix.down}})
                                     : 0;
        heads_ = std::make_unique<HydraHeads>(config, std::move(weights), std::move(output));
        bytes_ += heads_->bytes();
    }

    [[nodiscard]] std::size_t weight_bytes() const override {
        return bytes_ + (embedding_.defined() ? embedding_.nbytes() : 0);
    }
    [[nodiscard]] std::unique_ptr<HydraCache> make_cache() const override {
        return std::make_unique<LaneHydraCache>(layers_);
    }

    void take_up(std::span<const HydraRound> rounds, bool draft) override {
        const at::NoGradGuard no_grad;
        std::vector<at::Tensor> rows, newest;
        for (const HydraRound& round : rounds) {
            const at::Tensor features = round.features.to(options_);
            const std::int64_t last = features.size(0) - 1;
            if (last > 0) rows.push_back(features.narrow(0, 0, last));
            newest.push_back(features.narrow(0, last, 1));
        }
        if (!config_.prefix_layer) {
            ground_ = joined(newest);
            return;
        }
        if (rounds.size() == 1)
            rows.assign(1, rounds[0].features.to(options_));
        else
            rows.insert(rows.end(), newest.begin(), newest.end());
        run_prefix(rounds, joined(rows), draft);
    }

    void scores(std::span<const PathRow> rows, float* out, std::int64_t stride) override {
        const at::NoGradGuard no_grad;
        by_head(rows, [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
            std::vector<std::int64_t> sequences;
            std::vector<TokenId> tokens, pending;
            for (const PathRow& row :
                 rows.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))) {
                sequences.push_back(static_cast<std::int64_t>(row.sequence));
                pending.push_back(row.path.front());
                tokens.insert(tokens.end(), row.path.begin() + 1, row.path.end());
            }
            at::Tensor path;
            if (head > 0)
                path = (head_.embed(tokens).to(options_) * config_.embedding_scale)
                           .view({end - begin, head * config_.hidden});
            heads_->start(ground_.index_select(0, at::tensor(sequences, at::kLong).to(options_.device())),
                          head_.embed(pending).to(options_));
            const at::Tensor result = heads_->scores(head, path).to(at::kCPU);
            at::from_blob(out + begin * stride, {end - begin, stride}).slice(1, 0, result.size(1)).copy_(result);
        });
    }

    [[nodiscard]] bool searches(std::int64_t nodes) const override { return beam_fits(nodes, std::ssize(vocabulary_)); }

    // The N best paths of a length begin with N best ones of the length before: see CtcBeam.
    std::vector<TokenTree> search(std::span<const TokenId> pending, std::int64_t nodes, double least) override {
        const at::NoGradGuard no_grad;
        if (!embedding_.defined()) embedding_ = head_.embed(vocabulary_).to(options_) * config_.embedding_scale;
        heads_->start(ground_, head_.embed(pending).to(options_));
        const std::int64_t S = std::ssize(pending), V = std::ssize(vocabulary_), H = config_.hidden,
                           depth = beam_levels(nodes, config_.heads);
        std::vector<at::Tensor> found;
        at::Tensor path;  // [S, P, d] columns
        for (std::int64_t d = 0; d < depth; ++d) {
            const std::int64_t P = d == 0 ? 1 : path.size(1), width = beam_width(nodes, V, d);
            at::Tensor embedded;
            if (d > 0) embedded = embedding_.index_select(0, path.view({-1})).view({S * P, d * H});
            at::Tensor log_psi = at::log_softmax(heads_->scores(d, embedded), -1).view({S, P, V});
            if (d > 0) log_psi.add_(found[found.size() - 2].unsqueeze(2));
            const auto [best, place] = log_psi.view({S, P * V}).topk(width, 1);
            found.push_back(best), found.push_back(place);
            if (d + 1 < depth) path = longer(path, place);
        }
        return trees(at::cat(found, 1).to(at::kCPU, at::kFloat), pending, nodes, least);
    }

private:
    static at::Tensor joined(const std::vector<at::Tensor>& parts) {
        return parts.size() == 1 ? parts[0] : at::cat(parts);
    }
    static std::int64_t lane_of(const HydraRound& round) {
        return static_cast<const LaneHydraCache&>(*round.cache).lane;
    }

    /// `rows`: new features of all sequences but their newest, then these [S, H].
    void run_prefix(std::span<const HydraRound> rounds, const at::Tensor& features, bool draft) {
        const auto S = std::ssize(rounds);
        LanePlan plan;
        for (const HydraRound& round : rounds) plan.longest = std::max(plan.longest, round.committed);
        layers_->reserve(plan.longest);
        for (const HydraRound& round : rounds)
            for (std::int64_t j = round.committed - round.features.size(0); j + 1 < round.committed; ++j)
                plan.slot.push_back(layers_->slot(lane_of(round), j)), plan.position.push_back(j);
        for (const HydraRound& round : rounds) {
            plan.slot.push_back(layers_->slot(lane_of(round), round.committed - 1));
            plan.position.push_back(round.committed - 1);
            plan.lane.push_back(lane_of(round)), plan.limit.push_back(round.committed);
        }
        plan.frames = draft ? 1 : 0, plan.context = std::ssize(plan.slot) - (draft ? S : 0);
        RoundNumbers numbers;
        const LaneLayers::Parts parts = layers_->add(plan, numbers);
        numbers.send(options_.device());
        const LaneLayers::Round round = layers_->begin(plan, parts, numbers);
        const at::Tensor rows = features * config_.feature_scale;
        if (!draft) return layers_->remember(0, rows, round);
        at::Tensor newest = rows.narrow(0, plan.context, S);
        layers_->run(0, rows, newest, round);
        ground_ = fused_rms_norm(newest, prefix_norm_, config_.norm_eps);
    }

    [[nodiscard]] at::Tensor longer(const at::Tensor& path, const at::Tensor& place) const {
        const std::int64_t V = std::ssize(vocabulary_);
        if (!path.defined()) return place.unsqueeze(2);
        const at::Tensor parent = at::floor_divide(place, V), column = at::remainder(place, V);
        const at::Tensor before =
            path.gather(1, parent.unsqueeze(2).expand({place.size(0), place.size(1), path.size(2)}));
        return at::cat({before, column.unsqueeze(2)}, 2);
    }

    [[nodiscard]] std::vector<TokenTree> trees(const at::Tensor& found, std::span<const TokenId> pending,
                                               std::int64_t nodes, double least) const {
        std::vector<TokenTree> trees;
        const auto each = static_cast<std::size_t>(found.size(1));
        const std::span<const float> all(found.const_data_ptr<float>(), pending.size() * each);
        for (std::size_t i = 0; i < pending.size(); ++i)
            trees.push_back(
                beam_tree(all.subspan(i * each, each), nodes, config_.heads, least, pending[i], vocabulary_));
        return trees;
    }

    HydraConfig config_;
    TargetHead head_;
    std::vector<TokenId> vocabulary_;
    at::TensorOptions options_;
    std::shared_ptr<LaneLayers> layers_;  // null without a prefix layer
    at::Tensor prefix_norm_;
    std::unique_ptr<HydraHeads> heads_;
    at::Tensor embedding_;  // [V, H] of the draft vocabulary, times embedding_scale; made for the first search
    at::Tensor ground_;     // [S, H]
    std::size_t bytes_ = 0;
};

}  // namespace outrider::detail
