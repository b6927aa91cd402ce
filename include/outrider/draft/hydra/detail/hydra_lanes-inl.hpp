// Hydra's heads and prefix layer on a device: a beam over paths of one length, and no copy back but the trees'.
#pragma once

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <compare>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/draft/hydra/detail/hydra_backend.hpp>
#include <outrider/draft/hydra/detail/hydra_heads-inl.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>
#include <outrider/draft/nn/detail/device_products.hpp>
#include <outrider/draft/nn/detail/lane_layers.hpp>
#include <outrider/draft/nn/detail/operation_graphs.hpp>
#include <outrider/draft/nn/detail/target_tables.hpp>

namespace outrider::detail {

using LaneHydraCache = LaneCache<HydraCache>;

class LaneHydra final : public HydraBackend {
public:
    LaneHydra(const HydraConfig& config, HydraWeights weights, const TargetHead& head, std::int64_t lane_bytes)
        : config_(config),
          vocabulary_(draft_ids(config.vocabulary, head.vocabulary)),
          options_(options_of(weights, head)),
          embedding_(head, options_),
          prefix_runs_(options_.device()),
          searches_(options_.device()) {
        for (auto& [name, weight] : weights.named()) *weight = weight->detach().to(options_);
        if (config.prefix_layer)
            layers_ =
                std::make_shared<LaneLayers>(layer_sizes(config), std::span(&weights.prefix, 1), options_, lane_bytes);
        prefix_norm_ = weights.prefix_norm;
        rows_ = embedding_.table;
        if (vocabulary_ != draft_ids({}, head.vocabulary)) {
            rows_ = rows_.index_select(0, on_device({vocabulary_.begin(), vocabulary_.end()}));
            bytes_ += rows_.nbytes();
        }
        if (!shares_tables(head, options_.device())) bytes_ += embedding_.table.nbytes();
        at::Tensor output;
        if (config.output == HeadOutput::target) output = shared_output(head, config.vocabulary, options_);
        if (config.prefix_layer)
            bytes_ += bytes_of({{"qkv", &weights.prefix.qkv},
                                {"attn_out", &weights.prefix.attn_out},
                                {"gate_up", &weights.prefix.gate_up},
                                {"down", &weights.prefix.down}});
        heads_ = std::make_unique<HydraHeads>(config, std::move(weights), std::move(output), embedding_.scale);
        bytes_ += heads_->bytes();
    }

    [[nodiscard]] std::size_t weight_bytes() const override { return bytes_; }
    [[nodiscard]] std::unique_ptr<HydraCache> make_cache() const override {
        return std::make_unique<LaneHydraCache>(layers_);
    }
    [[nodiscard]] bool has_room(HydraCache& cache, std::int64_t committed) override {
        auto& own = static_cast<LaneHydraCache&>(cache);
        if (!layers_ || (own.lane != 0 && layers_->reserve(committed))) return true;
        own.give_back();  // what it holds is of no use without what comes next
        return false;
    }

    void take_up(std::span<const HydraRound> rounds, bool draft) override {
        const at::NoGradGuard no_grad;
        pending_.clear();
        for (const HydraRound& round : rounds) pending_.push_back(round.pending);
        Text& text = text_of(std::ssize(rounds));
        if (config_.prefix_layer) return run_prefix(rounds, text, draft);
        std::vector<at::Tensor> newest;
        for (const HydraRound& round : rounds)
            newest.push_back(round.features.narrow(0, round.features.size(0) - 1, 1));
        fill_rows(text.ground, newest);
        RoundNumbers numbers;
        const RoundNumbers::Part pending = numbers.add(pending_);
        numbers.send(options_.device(), text.numbers);
        aten::index_select_out(text.pending, embedding_.table, 0, numbers[pending]);
    }

    void scores(std::span<const PathRow> rows, float* out, std::int64_t stride) override {
        const at::NoGradGuard no_grad;
        const Text& text = text_of(std::ssize(pending_));
        by_head(rows, [&](std::int64_t head, std::int64_t begin, std::int64_t end) {
            std::vector<std::int64_t> sequences, tokens;
            for (const PathRow& row :
                 rows.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))) {
                sequences.push_back(static_cast<std::int64_t>(row.sequence));
                tokens.insert(tokens.end(), row.path.begin() + 1, row.path.end());
            }
            at::Tensor path;
            if (head > 0)
                path = embedding_.table.index_select(0, on_device(tokens)).view({end - begin, head * config_.hidden});
            const at::Tensor of = on_device(sequences);
            heads_->start(text.ground.index_select(0, of), text.pending.index_select(0, of));
            const at::Tensor result = heads_->scores(head, path).to(at::kCPU);
            at::from_blob(out + begin * stride, {end - begin, stride}).slice(1, 0, result.size(1)).copy_(result);
        });
    }

    [[nodiscard]] bool searches(std::int64_t nodes) const override { return beam_fits(nodes, std::ssize(vocabulary_)); }

    std::vector<TokenTree> search(std::int64_t nodes, double least) override {
        const at::NoGradGuard no_grad;
        const Text& text = text_of(std::ssize(pending_));
        const at::Tensor found =
            searches_.run({std::ssize(pending_), nodes}, [&] { return found_by_beam(text, nodes); });
        return trees(found.to(at::kCPU, at::kFloat), nodes, least);
    }

private:
    /// What the heads know of the texts of a round with so many sequences, where searches read it.
    struct Text {
        at::Tensor ground, pending;  ///< [S, H]
        at::Tensor numbers;          ///< [S] int64, without a prefix layer
    };
    struct Shape {
        std::int64_t sequences = 0, context = 0, longest = 0;
        std::int64_t only = 0;  ///< the lane of a sequence alone, which is read where it lies
        bool draft = false;
        [[nodiscard]] auto operator<=>(const Shape&) const = default;
    };
    struct Inputs {
        at::Tensor numbers;   ///< of the round, int64
        at::Tensor features;  ///< [context + S, H] f32
    };

    static at::TensorOptions options_of(const HydraWeights& weights, const TargetHead& head) {
        const at::Device device = weights.heads[0][0].bias.device();
        return at::TensorOptions().device(device).dtype(draft_type(head, device));
    }
    [[nodiscard]] at::Tensor on_device(const std::vector<std::int64_t>& numbers) const {
        return at::tensor(numbers, at::kLong).to(options_.device());
    }
    static std::int64_t lane_of(const HydraRound& round) {
        return static_cast<const LaneHydraCache&>(*round.cache).lane;
    }
    Text& text_of(std::int64_t sequences) {
        Text& text = texts_[sequences];
        if (!text.ground.defined())
            text.ground = aten::empty({sequences, config_.hidden}, options_),
            text.pending = aten::empty_like(text.ground);
        return text;
    }

    /// `plan`: new rows of all sequences but their newest, rows that fill the shape up, then these.
    Shape plan_rows(std::span<const HydraRound> rounds, LanePlan& plan, bool draft) const {
        const auto S = std::ssize(rounds);
        std::int64_t longest = 0;
        for (const HydraRound& round : rounds) longest = std::max(longest, round.committed);
        for (const HydraRound& round : rounds)
            for (std::int64_t j = round.committed - round.features.size(0); j + 1 < round.committed; ++j)
                plan.slot.push_back(layers_->slot(lane_of(round), j)), plan.position.push_back(j);
        const std::int64_t filled = filled_rows(std::ssize(plan.slot));
        plan.slot.resize(static_cast<std::size_t>(filled)), plan.position.resize(static_cast<std::size_t>(filled));
        for (const HydraRound& round : rounds) {
            plan.slot.push_back(layers_->slot(lane_of(round), round.committed - 1));
            plan.position.push_back(round.committed - 1);
            plan.lane.push_back(lane_of(round)), plan.limit.push_back(round.committed);
        }
        plan.longest = layers_->looked_at(longest);
        plan.frames = draft ? 1 : 0, plan.context = filled + (draft ? 0 : S);
        return {.sequences = S,
                .context = filled,
                .longest = plan.longest,
                .only = S == 1 ? plan.lane[0] : 0,
                .draft = draft};
    }

    void run_prefix(std::span<const HydraRound> rounds, Text& text, bool draft) {
        if (layers_->generation() != std::exchange(moved_, layers_->generation())) prefix_runs_.clear();
        LanePlan plan;
        const Shape shape = plan_rows(rounds, plan, draft);
        RoundNumbers numbers;
        const LaneLayers::Parts parts = layers_->add(plan, numbers);
        const RoundNumbers::Part pending = numbers.add(pending_);
        Inputs& inputs = prefix_runs_.inputs(shape);
        numbers.send(options_.device(), inputs.numbers);
        if (!inputs.features.defined())
            inputs.features =
                aten::zeros({shape.context + shape.sequences, config_.hidden}, options_.dtype(at::kFloat));
        std::vector<at::Tensor> earlier, newest;
        for (const HydraRound& round : rounds) {
            const std::int64_t last = round.features.size(0) - 1;
            if (last > 0) earlier.push_back(round.features.narrow(0, 0, last));
            newest.push_back(round.features.narrow(0, last, 1));
        }
        fill_rows(inputs.features, earlier);
        fill_rows(inputs.features.narrow(0, shape.context, shape.sequences), newest);
        (void)prefix_runs_.run(shape, [&] {
            const LaneLayers::Round round = layers_->begin(plan, parts, numbers);
            const at::Tensor rows = (inputs.features * config_.feature_scale).to(options_);
            if (!draft) return layers_->remember(0, rows, round), at::Tensor();
            at::Tensor last = rows.narrow(0, shape.context, shape.sequences);
            layers_->run(0, rows, last, round);
            text.ground.copy_(fused_rms_norm(last, prefix_norm_, config_.norm_eps));
            return aten::index_select_out(text.pending, embedding_.table, 0, numbers[pending]);
        });
        if (shape.context > kMostKept) prefix_runs_.forget(shape);  // a prompt's
    }

    // The N best paths of a length begin with N best ones of the length before: see CtcBeam.
    [[nodiscard]] at::Tensor found_by_beam(const Text& text, std::int64_t nodes) {
        heads_->start(text.ground, text.pending);
        const std::int64_t S = text.ground.size(0), V = std::ssize(vocabulary_), H = config_.hidden,
                           depth = beam_levels(nodes, config_.heads);
        std::vector<at::Tensor> found;
        at::Tensor path;  // [S, P, d] columns
        for (std::int64_t d = 0; d < depth; ++d) {
            const std::int64_t P = d == 0 ? 1 : path.size(1), width = beam_width(nodes, V, d);
            at::Tensor embedded;
            if (d > 0) embedded = rows_.index_select(0, path.view({-1})).view({S * P, d * H});
            at::Tensor log_psi = aten::log_softmax(heads_->scores(d, embedded), -1, at::kFloat).view({S, P, V});
            if (d > 0) log_psi.add_(found[found.size() - 2].unsqueeze(2));
            const auto [best, place] = log_psi.view({S, P * V}).topk(width, 1);
            found.push_back(best), found.push_back(place);
            if (d + 1 < depth) path = longer(path, place);
        }
        return aten::cat(found, 1);
    }

    [[nodiscard]] at::Tensor longer(const at::Tensor& path, const at::Tensor& place) const {
        const std::int64_t V = std::ssize(vocabulary_);
        if (!path.defined()) return place.unsqueeze(2);
        const at::Tensor parent = aten::floor_divide(place, V), column = aten::remainder(place, V);
        const at::Tensor before =
            path.gather(1, parent.unsqueeze(2).expand({place.size(0), place.size(1), path.size(2)}));
        return aten::cat({before, column.unsqueeze(2)}, 2);
    }

    [[nodiscard]] std::vector<TokenTree> trees(const at::Tensor& found, std::int64_t nodes, double least) const {
        std::vector<TokenId> pending;
        for (const std::int64_t token : pending_) pending.push_back(static_cast<TokenId>(token));
        return beam_trees({found.const_data_ptr<float>(), pending.size() * static_cast<std::size_t>(found.size(1))},
                          nodes, config_.heads, least, pending, vocabulary_);
    }

    static constexpr std::int64_t kMostKept = 256;

    HydraConfig config_;
    std::vector<TokenId> vocabulary_;
    at::TensorOptions options_;
    SharedEmbedding embedding_;
    at::Tensor rows_;                     // [V, H] of the draft vocabulary
    std::shared_ptr<LaneLayers> layers_;  // null without a prefix layer
    at::Tensor prefix_norm_;
    std::unique_ptr<HydraHeads> heads_;
    std::vector<std::int64_t> pending_;  // of the last take_up
    std::map<std::int64_t, Text> texts_;
    ShapedRuns<Shape, Inputs, at::Tensor> prefix_runs_;
    ShapedRuns<std::pair<std::int64_t, std::int64_t>, char, at::Tensor> searches_;  // by sequences and nodes
    std::int64_t moved_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace outrider::detail
