// The CTC drafter's network on a device: few tensor operations, whatever the number of sequences, and no copy back but
// the tree's.
#pragma once

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <compare>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/draft/ctc/detail/ctc_backend.hpp>
#include <outrider/draft/ctc/detail/ctc_beam.hpp>
#include <outrider/draft/ctc/detail/ctc_prefix_table-inl.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>
#include <outrider/draft/nn/detail/device_products.hpp>
#include <outrider/draft/nn/detail/floats.hpp>
#include <outrider/draft/nn/detail/lane_layers.hpp>
#include <outrider/draft/nn/detail/operation_graphs.hpp>
#include <outrider/draft/nn/detail/target_tables.hpp>

namespace outrider::detail {

/// Frames that know no prefix.
struct PlainFrames final : CtcBeamScores {
    [[nodiscard]] at::Tensor root() override { return {}; }
    [[nodiscard]] at::Tensor longer(const at::Tensor&, const at::Tensor&) override { return {}; }
    [[nodiscard]] at::Tensor tokens(std::int64_t) override { return {}; }
    [[nodiscard]] at::Tensor behind(std::int64_t) override { return {}; }
};

using LaneCtcCache = LaneCache<CtcCache>;

class LaneCtc final : public CtcBackend {
public:
    LaneCtc(const CtcConfig& config, const CtcWeights& weights, const TargetHead& head, const CtcLaneOptions& options)
        : config_(config),
          kernels_(options.kernels),
          options_(at::TensorOptions().device(weights.fuse.device()).dtype(draft_type(head, weights.fuse.device()))),
          embedding_(head, options_),
          beam_(config.frames, std::ssize(config.vocabulary), options_.device()),
          runs_(options_.device()) {
        const auto floats = [](const at::Tensor& weight) { return weight.detach().to(at::kFloat); };
        const auto typed = [&](const at::Tensor& weight) { return weight.detach().to(options_); };
        const std::int64_t H = config.hidden, V = std::ssize(config.vocabulary);
        const at::Tensor fuse = floats(weights.fuse);
        fuse_ = typed(aten::cat({fuse.slice(1, 0, H) * (config.embedding_scale * embedding_.scale),
                                 fuse.slice(1, H, 2 * H) * config.feature_scale, fuse.slice(1, 2 * H)},
                                1));
        std::vector<LayerWeights> layers = weights.layers;
        for (LayerWeights& layer : layers)
            for (at::Tensor* part :
                 {&layer.attn_norm, &layer.qkv, &layer.attn_out, &layer.mlp_norm, &layer.gate_up, &layer.down})
                *part = typed(*part), bytes_ += part->nbytes();
        layers_ = std::make_shared<LaneLayers>(layer_sizes(config), layers, options_, options.lane_bytes, kernels_);
        queries_ = typed(weights.queries), final_norm_ = typed(weights.final_norm);
        const at::Tensor blank = typed(weights.blank), bias = floats(weights.blank_bias);
        output_ = aten::cat({head.output_rows(config.vocabulary).to(options_), blank, -blank});
        bias_ = aten::cat({aten::zeros({V}, bias.options()), bias, -bias});
        if (config.conditioning == CtcConditioning::prefix)
            prefixes_ = std::make_unique<CtcPrefixTable>(config, weights, head, output(), embedding_.scale, kernels_);
        for (const at::Tensor& part : {fuse_, queries_, final_norm_, output_}) bytes_ += part.nbytes();
        if (!shares_tables(head, options_.device())) bytes_ += embedding_.table.nbytes();
    }

    /// The target's rows of the draft vocabulary [V, H].
    [[nodiscard]] at::Tensor output() const { return output_.narrow(0, 0, output_.size(0) - 2); }

    [[nodiscard]] std::size_t weight_bytes() const override { return bytes_ + (prefixes_ ? prefixes_->bytes() : 0); }
    [[nodiscard]] std::unique_ptr<CtcCache> make_cache() const override {
        return std::make_unique<LaneCtcCache>(layers_);
    }
    [[nodiscard]] bool has_room(CtcCache& cache, std::int64_t committed) override {
        auto& own = static_cast<LaneCtcCache&>(cache);
        if (own.lane != 0 && layers_->reserve(committed + config_.frames)) return true;
        own.give_back();  // what it holds is of no use without what comes next
        return false;
    }

    void run(std::span<CtcRound> rounds, bool frames, std::span<const float> roots, CtcRoundScores& scores) override {
        const at::NoGradGuard no_grad;
        const at::Tensor result = forward(rounds, frames ? Work::frames : Work::context, 0);
        if (!frames) return;
        const std::int64_t V = output_.size(0) - 2;
        scores.gate = floats_of(result.select(1, V));
        at::Tensor logits = result.narrow(1, 0, V);
        if (!roots.empty()) {
            const at::Tensor states = aten::empty({std::ssize(roots) / config_.hidden, config_.hidden}, at::kFloat);
            std::copy(roots.begin(), roots.end(), states.mutable_data_ptr<float>());
            logits = aten::cat({logits, product_in_f32(states.to(options_), output())});
        }
        scores.logits = floats_of(logits);
    }

    [[nodiscard]] bool searches(std::int64_t nodes) const override {
        return beam_fits(nodes, std::ssize(config_.vocabulary));
    }

    std::vector<TokenTree> search(std::span<CtcRound> rounds, std::int64_t nodes, double least) override {
        const at::NoGradGuard no_grad;
        const at::Tensor found = beam_.fetched(forward(rounds, Work::search, nodes), nodes);
        std::vector<TokenId> pending;
        for (const CtcRound& round : rounds) pending.push_back(round.pending);
        return beam_trees({found.const_data_ptr<float>(), pending.size() * static_cast<std::size_t>(found.size(1))},
                          nodes, config_.frames, least, pending, config_.vocabulary);
    }

private:
    static std::int64_t lane_of(const CtcRound& round) { return static_cast<const LaneCtcCache&>(*round.cache).lane; }

    enum class Work : unsigned char { context, frames, search };

    /// Rounds of one shape are the same operations on the same sizes.
    struct Shape {
        std::int64_t sequences = 0, context = 0, longest = 0, nodes = 0;
        std::int64_t only = 0;  ///< the lane of a sequence alone, which is read where it lies
        Work work = Work::context;
        [[nodiscard]] auto operator<=>(const Shape&) const = default;
    };
    struct Inputs {
        at::Tensor numbers;   ///< of the round, int64
        at::Tensor fused;     ///< [context + 2 S, H + F] what goes into `fuse`: embeddings, features
        at::Tensor features;  ///< [context, F] f32; in rows that fill the shape up what was there before. In f32 a view
                              ///< of these
    };

    /// What a round is about, on the host: rows that fill the shape up, rows but the newest of all sequences, then the
    /// newest of each sequence. A sequence of which nothing is committed has one row that nobody remembers: its pending
    /// token without a feature.
    struct Plan : LanePlan {
        Shape shape;
        std::int64_t fill = 0;             ///< rows that fill up
        std::vector<std::int64_t> tokens;  ///< of all rows
        std::vector<at::Tensor> features;  ///< of the rows behind those that fill up
        RoundNumbers numbers;
        RoundNumbers::Part token_at;
        LaneLayers::Parts parts;
    };

    void plan_rows(std::span<CtcRound> rounds, Plan& plan) {
        const auto add = [&](std::int64_t token, std::int64_t slot, std::int64_t position) {
            plan.tokens.push_back(token), plan.slot.push_back(slot), plan.position.push_back(position);
        };
        std::int64_t earlier = 0;
        for (const CtcRound& round : rounds) earlier += std::max<std::int64_t>(std::ssize(round.next) - 1, 0);
        plan.fill = filled_rows(earlier) - earlier;
        for (std::int64_t i = 0; i < plan.fill; ++i) add(0, 0, 0);
        for (const CtcRound& round : rounds) {
            const std::int64_t lane = lane_of(round), rows = std::ssize(round.next), begin = round.committed - rows;
            for (std::int64_t j = 0; j + 1 < rows; ++j)
                add(round.next[static_cast<std::size_t>(j)], layers_->slot(lane, begin + j), begin + j);
            if (rows > 1) plan.features.push_back(round.features.narrow(0, 0, rows - 1));
        }
        for (const CtcRound& round : rounds) {
            const std::int64_t rows = std::ssize(round.next), newest = round.committed - 1;
            if (rows > 0) {
                add(round.next.back(), layers_->slot(lane_of(round), newest), newest);
                plan.features.push_back(round.features.narrow(0, rows - 1, 1));
                continue;
            }
            if (!no_feature_.defined())
                no_feature_ = aten::zeros({1, ctc_feature_width(config_)}, options_.dtype(at::kFloat));
            add(round.pending, 0, 0), plan.features.push_back(no_feature_);
        }
        plan.context = std::ssize(plan.slot);
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

    Plan plan_of(std::span<CtcRound> rounds, Work work, std::int64_t nodes) {
        Plan plan;
        std::int64_t longest = 0;
        for (const CtcRound& round : rounds) longest = std::max(longest, round.committed + config_.frames);
        plan.longest = layers_->looked_at(longest);
        plan_rows(rounds, plan);
        if (work != Work::context) plan_frames(rounds, plan);
        plan.parts = layers_->add(plan, plan.numbers);
        if (work == Work::search && prefixes_) {
            std::vector<bool> known;
            for (const CtcRound& round : rounds) plan.tokens.push_back(round.pending);
            for (const CtcRound& round : rounds)
                plan.tokens.push_back(std::max<TokenId>(round.before, 0)), known.push_back(round.before != kNoToken);
            prefixes_->plan(known, nodes, plan.numbers);
        }
        plan.token_at = plan.numbers.add(plan.tokens);
        plan.shape = {.sequences = std::ssize(rounds),
                      .context = plan.context,
                      .longest = plan.longest,
                      .nodes = nodes,
                      .only = rounds.size() == 1 ? lane_of(rounds[0]) : 0,
                      .work = work};
        return plan;
    }

    /// Numbers and features to where the operations of this shape read them.
    void send(Plan& plan, Inputs& inputs) const {
        plan.numbers.send(options_.device(), inputs.numbers);
        if (!inputs.features.defined()) {
            const std::int64_t rows = std::ssize(plan.tokens), H = config_.hidden, F = ctc_feature_width(config_);
            inputs.fused = aten::zeros({rows, H + F}, options_);
            inputs.features = inputs.fused.narrow(0, 0, plan.context).narrow(1, H, F).to(at::kFloat);
        }
        fill_rows(inputs.features.narrow(0, plan.fill, plan.context - plan.fill), plan.features);
    }

    /// Takes up the new rows; frames [S T, V + 2] or what the search found, unless these rows are all that is wanted.
    at::Tensor forward(std::span<CtcRound> rounds, Work work, std::int64_t nodes) {
        Plan plan = plan_of(rounds, work, nodes);
        if (work == Work::search && !(kernels_ && has_beam_kernels(options_.device())))
            beam_.reserve(std::ssize(rounds) * nodes);
        const std::int64_t moved =
            layers_->generation() + beam_.generation() + (prefixes_ ? prefixes_->generation() : 0);
        if (moved != std::exchange(moved_, moved)) runs_.clear();
        Inputs& inputs = runs_.inputs(plan.shape);
        send(plan, inputs);
        const at::Tensor made = runs_.run(plan.shape, [&] { return compute(plan, inputs); });
        if (plan.context > kMostKept) runs_.forget(plan.shape);  // a prompt's
        return made;
    }

    at::Tensor compute(const Plan& plan, const Inputs& inputs) {
        const RoundNumbers& numbers = plan.numbers;
        const std::int64_t S = plan.shape.sequences;
        const LaneLayers::Round round = layers_->begin(plan, plan.parts, numbers);
        const at::Tensor rows = aten::empty({plan.context + S * plan.frames, config_.hidden}, options_);
        const at::Tensor fused = inputs.fused.narrow(0, 0, plan.context);
        at::Tensor embedded = inputs.fused.narrow(1, 0, config_.hidden), context = rows.narrow(0, 0, plan.context);
        aten::index_select_out(embedded, embedding_.table, 0, numbers[plan.token_at]);
        if (!inputs.features.is_alias_of(fused))
            fused.narrow(1, config_.hidden, inputs.features.size(1)).copy_(inputs.features);
        aten::mm_out(context, fused, fuse_.t());  // u_j
        if (plan.shape.work == Work::context) {
            for (std::size_t l = 0; l < layers_->size(); ++l) layers_->remember(l, context, round);
            return {};
        }
        const bool search = plan.shape.work == Work::search;
        if (search && prefixes_)
            prefixes_->start(embedded.narrow(0, plan.context, 2 * S).to(at::kFloat),
                             newest(plan, inputs.features).narrow(1, 0, config_.hidden), numbers);
        at::Tensor x = rows.narrow(0, plan.context, S * plan.frames), begun = x.view({S, plan.frames, -1});
        aten::add_out(begun, newest(plan, context).unsqueeze(1), queries_);
        for (std::size_t l = 0; l < layers_->size(); ++l) layers_->run(l, rows, x, round);
        const at::Tensor last = fused_rms_norm(x, final_norm_, config_.norm_eps);
        const at::Tensor frames = options_.dtype() == at::kFloat ? aten::addmm(bias_, last, output_.t())
                                                                 : product_in_f32(last, output_).add_(bias_);
        if (!search) return frames;
        PlainFrames plain;
        return beam_.search(frames, plan.shape.nodes, prefixes_ ? static_cast<CtcBeamScores&>(*prefixes_) : plain,
                            kernels_);
    }

    /// The newest row of every sequence: [S, ..].
    [[nodiscard]] static at::Tensor newest(const Plan& plan, const at::Tensor& rows) {
        return rows.narrow(0, plan.context - plan.shape.sequences, plan.shape.sequences);
    }

    static constexpr std::int64_t kMostKept = 256;

    CtcConfig config_;
    bool kernels_;
    at::TensorOptions options_;
    SharedEmbedding embedding_;
    CtcBeam beam_;
    std::shared_ptr<LaneLayers> layers_;
    at::Tensor fuse_;                  // [H, H + F], scales in it
    at::Tensor queries_, final_norm_;  // [T, H], [H]
    at::Tensor output_, bias_;         // [V + 2, H], and [V + 2] f32: tokens, blank, and its negative
    at::Tensor no_feature_;            // [1, F] zeros
    std::unique_ptr<CtcPrefixTable> prefixes_;
    ShapedRuns<Shape, Inputs, at::Tensor> runs_;
    std::int64_t moved_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace outrider::detail
