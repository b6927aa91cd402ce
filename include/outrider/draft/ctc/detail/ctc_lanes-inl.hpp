// The CTC drafter's network on a device: few tensor operations, whatever the number of sequences, and no copy back but
// the tree's.
#pragma once

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/draft/ctc/detail/ctc_backend.hpp>
#include <outrider/draft/ctc/detail/ctc_beam.hpp>
#include <outrider/draft/ctc/detail/ctc_prefix_table-inl.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>
#include <outrider/draft/nn/detail/floats.hpp>
#include <outrider/draft/nn/detail/lane_layers.hpp>
#include <outrider/draft/nn/detail/operators.hpp>

namespace outrider::detail {

/// Frames that know no prefix.
struct PlainFrames final : CtcBeamScores {
    [[nodiscard]] at::Tensor root() override { return {}; }
    [[nodiscard]] at::Tensor longer(const at::Tensor&, const at::Tensor&) override { return {}; }
};

struct LaneCtcCache final : CtcCache {
    explicit LaneCtcCache(std::shared_ptr<LaneLayers> of) : layers(std::move(of)), lane(layers->take_lane()) {}
    ~LaneCtcCache() override { layers->give_lane(lane); }
    LaneCtcCache(const LaneCtcCache&) = delete;
    LaneCtcCache& operator=(const LaneCtcCache&) = delete;

    std::shared_ptr<LaneLayers> layers;
    std::int64_t lane;
};

class LaneCtc final : public CtcBackend {
public:
    LaneCtc(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head, bool kernels)
        : config_(config),
          head_(head),
          kernels_(kernels),
          options_(at::TensorOptions().device(weights.fuse.device()).dtype(at::kFloat)),
          beam_(config.frames, std::ssize(config.vocabulary), options_.device()) {
        const auto floats = [](const at::Tensor& weight) { return weight.detach().to(at::kFloat); };
        const std::int64_t H = config.hidden, V = std::ssize(config.vocabulary);
        const at::Tensor fuse = floats(weights.fuse);
        by_embedding_ = fuse.slice(1, 0, H) * config.embedding_scale;
        by_feature_ = at::cat({fuse.slice(1, H, 2 * H) * config.feature_scale, fuse.slice(1, 2 * H)}, 1);
        std::vector<LayerWeights> layers = weights.layers;
        for (LayerWeights& layer : layers)
            for (at::Tensor* part :
                 {&layer.attn_norm, &layer.qkv, &layer.attn_out, &layer.mlp_norm, &layer.gate_up, &layer.down})
                *part = floats(*part), bytes_ += part->nbytes();
        layers_ = std::make_shared<LaneLayers>(layer_sizes(config), layers, options_);
        queries_ = floats(weights.queries), final_norm_ = floats(weights.final_norm);
        const at::Tensor blank = floats(weights.blank), bias = floats(weights.blank_bias);
        output_ = at::cat({head.output_rows(config.vocabulary).to(options_), blank, -blank});
        bias_ = at::cat({at::zeros({V}, options_), bias, -bias});
        if (config.conditioning == CtcConditioning::prefix)
            prefixes_ = std::make_unique<CtcPrefixTable>(config, weights, head, output(), kernels);
        for (const at::Tensor& part : {by_embedding_, by_feature_, queries_, final_norm_, output_})
            bytes_ += part.nbytes();
    }

    /// The target's rows of the draft vocabulary [V, H].
    [[nodiscard]] at::Tensor output() const { return output_.narrow(0, 0, output_.size(0) - 2); }

    [[nodiscard]] std::size_t weight_bytes() const override { return bytes_ + (prefixes_ ? prefixes_->bytes() : 0); }
    [[nodiscard]] std::unique_ptr<CtcCache> make_cache() const override {
        return std::make_unique<LaneCtcCache>(layers_);
    }

    void run(std::span<CtcRound> rounds, bool frames, std::span<const float> roots, CtcRoundScores& scores) override {
        const at::NoGradGuard no_grad;
        const at::Tensor result = forward(rounds, frames ? Work::frames : Work::context, 0);
        if (!frames) return;
        const std::int64_t V = output_.size(0) - 2;
        scores.gate = floats_of(result.select(1, V));
        at::Tensor logits = result.narrow(1, 0, V);
        if (!roots.empty()) {
            const at::Tensor states = at::empty({std::ssize(roots) / config_.hidden, config_.hidden}, at::kFloat);
            std::copy(roots.begin(), roots.end(), states.mutable_data_ptr<float>());
            logits = at::cat({logits, at::mm(states.to(options_.device()), output().t())});
        }
        scores.logits = floats_of(logits);
    }

    [[nodiscard]] bool searches(std::int64_t nodes) const override {
        return beam_fits(nodes, std::ssize(config_.vocabulary));
    }

    std::vector<TokenTree> search(std::span<CtcRound> rounds, std::int64_t nodes, double least) override {
        const at::NoGradGuard no_grad;
        const at::Tensor frames = forward(rounds, Work::search, nodes);
        PlainFrames plain;
        const at::Tensor found =
            beam_.search(frames, nodes, prefixes_ ? static_cast<CtcBeamScores&>(*prefixes_) : plain, kernels_);
        std::vector<TokenTree> trees;
        const auto each = static_cast<std::size_t>(found.size(1));
        const std::span<const float> all(found.const_data_ptr<float>(), rounds.size() * each);
        for (std::size_t i = 0; i < rounds.size(); ++i)
            trees.push_back(beam_tree(all.subspan(i * each, each), nodes, config_.frames, least, rounds[i].pending,
                                      config_.vocabulary));
        return trees;
    }

private:
    static std::int64_t lane_of(const CtcRound& round) { return static_cast<const LaneCtcCache&>(*round.cache).lane; }

    enum class Work : unsigned char { context, frames, search };

    /// What a round is about, on the host. A sequence of which nothing is committed has one row that nobody remembers:
    /// its pending token without a feature.
    struct Plan : LanePlan {
        std::vector<TokenId> tokens;
        std::vector<at::Tensor> features;
        std::vector<std::int64_t> rows;  ///< of each sequence
    };

    Plan plan_of(std::span<CtcRound> rounds) {
        std::int64_t longest = 0;
        for (const CtcRound& round : rounds) longest = std::max(longest, round.committed + config_.frames);
        layers_->reserve(longest);
        Plan plan;
        plan.longest = longest;
        for (const CtcRound& round : rounds) {
            const std::int64_t lane = lane_of(round), rows = std::ssize(round.next);
            plan.tokens.insert(plan.tokens.end(), round.next.begin(), round.next.end());
            for (std::int64_t j = round.committed - rows; j < round.committed; ++j)
                plan.slot.push_back(layers_->slot(lane, j)), plan.position.push_back(j);
            plan.rows.push_back(std::max<std::int64_t>(rows, 1));
            if (rows > 0) {
                plan.features.push_back(round.features.to(options_));
                continue;
            }
            plan.tokens.push_back(round.pending), plan.slot.push_back(0), plan.position.push_back(0);
            plan.features.push_back(at::zeros({1, ctc_feature_width(config_)}, options_));
        }
        plan.context = std::ssize(plan.slot);
        return plan;
    }

    /// Adds the frames' rows.
    void plan_frames(std::span<CtcRound> rounds, Plan& plan) const {
        plan.frames = config_.frames;
        for (const CtcRound& round : rounds) {
            const std::int64_t lane = lane_of(round);
            for (std::int64_t t = 0; t < config_.frames; ++t)
                plan.slot.push_back(layers_->slot(lane, round.committed + t)),
                    plan.position.push_back(round.committed + t);
            plan.lane.push_back(lane), plan.limit.push_back(round.committed + config_.frames);
        }
    }

    /// Takes up the new rows; [S T, V + 2] frames unless they are all that is wanted.
    at::Tensor forward(std::span<CtcRound> rounds, Work work, std::int64_t nodes) {
        Plan plan = plan_of(rounds);
        if (work != Work::context) plan_frames(rounds, plan);
        RoundNumbers numbers;
        const LaneLayers::Parts parts = layers_->add(plan, numbers);
        if (work == Work::search && prefixes_) {
            std::vector<bool> known;
            for (const CtcRound& round : rounds) plan.tokens.push_back(round.pending);
            for (const CtcRound& round : rounds)
                plan.tokens.push_back(std::max<TokenId>(round.before, 0)), known.push_back(round.before != kNoToken);
            prefixes_->plan(known, nodes, numbers);
        }
        numbers.send(options_.device());
        const LaneLayers::Round round = layers_->begin(plan, parts, numbers);
        const at::Tensor embedded = head_.embed(plan.tokens).to(options_), features = joined(plan.features);
        const at::Tensor context =
            at::mm(embedded.narrow(0, 0, plan.context), by_embedding_.t()).addmm_(features, by_feature_.t());  // u_j
        if (work == Work::context) {
            for (std::size_t l = 0; l < layers_->size(); ++l) layers_->remember(l, context, round);
            return {};
        }
        if (work == Work::search && prefixes_)
            prefixes_->start(embedded.narrow(0, plan.context, 2 * std::ssize(rounds)),
                             last(plan, features.narrow(1, 0, config_.hidden)), numbers);
        at::Tensor x = (last(plan, context).unsqueeze(1) + queries_).view({-1, config_.hidden});
        for (std::size_t l = 0; l < layers_->size(); ++l) layers_->run(l, at::cat({context, x}), x, round);
        return at::addmm(bias_, fused_rms_norm(x, final_norm_, config_.norm_eps), output_.t());
    }

    static at::Tensor joined(const std::vector<at::Tensor>& parts) {
        return parts.size() == 1 ? parts[0] : at::cat(parts);
    }

    /// The last row of every sequence, of their rows one below the other: [S, ..].
    [[nodiscard]] static at::Tensor last(const Plan& plan, const at::Tensor& rows) {
        std::vector<at::Tensor> parts;
        std::int64_t end = 0;
        for (const std::int64_t count : plan.rows) parts.push_back(rows.narrow(0, (end += count) - 1, 1));
        return joined(parts);
    }

    CtcConfig config_;
    TargetHead head_;
    bool kernels_;
    at::TensorOptions options_;
    CtcBeam beam_;
    std::shared_ptr<LaneLayers> layers_;
    at::Tensor by_embedding_, by_feature_;  // [H, H] and [H, F], scales in them
    at::Tensor queries_, final_norm_;       // [T, H], [H]
    at::Tensor output_, bias_;              // [V + 2, H] and [V + 2]: tokens, blank, and its negative
    std::unique_ptr<CtcPrefixTable> prefixes_;
    std::size_t bytes_ = 0;
};

}  // namespace outrider::detail
