// Bodies of ctc_draft.hpp.
#pragma once

#include <outrider/draft/ctc/ctc_draft.hpp>

#include <algorithm>
#include <atomic>
#include <optional>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/ctc/static_tree.hpp>
#include <outrider/target/detail/features.hpp>

#include <outrider/draft/ctc/detail/ctc_backend.hpp>
#include <outrider/draft/ctc/detail/ctc_per_frame.hpp>
#include <outrider/draft/ctc/detail/ctc_search.hpp>
#include <outrider/draft/nn/detail/drafter_files.hpp>
#include <outrider/draft/nn/detail/floats.hpp>
#include <outrider/draft/nn/detail/progress.hpp>
#include <outrider/draft/nn/detail/row_team.hpp>
#include <outrider/draft/nn/detail/warm_up.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// What is known of one sequence.
struct CtcKnown : Progress {
    std::unique_ptr<CtcCache> cache;
    TokenId before = kNoToken;        ///< x_{n-1}
    std::vector<float> feature = {};  ///< [H] h_{n-1}; empty while nothing is committed
};

class CtcEngine final : public DraftEngine<CtcConfig> {
public:
    CtcEngine(CtcConfig config, CtcWeights weights, const TargetHead& head, const CtcDraftOptions& options);

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override;
    void forget(SequenceId sequence) override { sequences_.erase(sequence); }
    [[nodiscard]] DraftDraws draws() const override {
        if (options_.tree != CtcTree::sampled) return DraftDraws::none;
        return options_.chains <= 1 ? DraftDraws::chain : DraftDraws::independent;
    }
    [[nodiscard]] FeatureRequest features() const override { return {.layers = config_.feature_layers}; }
    [[nodiscard]] const CtcConfig& config() const override { return config_; }
    [[nodiscard]] std::size_t weight_bytes() const override {
        return with_.backend->weight_bytes() + (with_.prediction ? with_.prediction->bytes() : 0);
    }

private:
    std::vector<SequenceTree> of_rounds(std::vector<CtcRound>& rounds, std::span<const SequenceFeedback> feedback,
                                        bool alone, const DraftBudget& budget);

    /// What one search needs; sequences that are searched at once need one each.
    struct Searcher {
        FrameBuilder builder;
        CtcFrames frames;
        PrefixTreeSearch best_first;
        StaticPrefixTree static_tree;
        AlignmentSampler sampler;
        CtcSearch search;
        std::unique_ptr<CtcPrediction::Scratch> prediction;  ///< null where frames know no prefix
    };

    /// Whether trees come from the search over the whole draft vocabulary.
    [[nodiscard]] bool searches(const DraftBudget& budget) const {
        return options_.tree == CtcTree::best_first && (with_.prediction || budget.chains);
    }

    /// Checks all feedback before any state changes, then takes it up. Returns the rounds of those that there is memory
    /// for, whose feedback is left in `drafted`. `fetch`: the prediction network will ask for the newest features on
    /// the host.
    std::vector<CtcRound> take_up(std::span<const SequenceFeedback> feedback, bool fetch,
                                  std::vector<SequenceFeedback>& drafted) {
        for (const SequenceFeedback& it : feedback) {
            const auto known = sequences_.find(it.sequence);
            check_progress("CtcDraft", it, known == sequences_.end() ? nullptr : &known->second, width_, vocabulary_);
        }
        std::vector<CtcRound> rounds;
        for (const SequenceFeedback& it : feedback) {
            CtcKnown& known = sequences_[it.sequence];
            if (!known.cache) known.cache = with_.backend->make_cache();
            CtcRound round{known.cache.get(), it.committed, {}, {}, it.pending, kNoToken};
            if (!it.tokens.empty()) {
                round.features = it.features;
                round.next.assign(it.tokens.begin() + 1, it.tokens.end());
                round.next.push_back(it.pending);
                known.before = it.tokens.back();
                if (fetch) known.feature = last_row(it.features, config_.hidden);
            }
            known.committed = it.committed;
            known.pending = it.pending;
            round.before = known.before;
            if (!with_.backend->has_room(*known.cache, it.committed)) continue;
            rounds.push_back(std::move(round)), drafted.push_back(it);
        }
        return rounds;
    }

    template <typename Condition>
    SequenceTree tree(Searcher& mine, const SequenceFeedback& it, const DraftBudget& budget,
                      Condition&& condition) const {
        const std::int64_t nodes = budget.nodes;
        switch (options_.tree) {
            case CtcTree::static_tree:
                return {it.sequence, mine.static_tree.tree(it.pending, mine.frames, medusa63(), nodes, condition)};
            case CtcTree::sampled: {
                const auto chains =
                    static_cast<std::size_t>(std::clamp<std::int64_t>(options_.chains, 1, budget.chains ? 1 : nodes));
                const RandomKey key(options_.seed, static_cast<std::uint64_t>(it.sequence), it.committed,
                                    static_cast<std::uint64_t>(RandomPurpose::draft));
                SampledDraft drawn = mine.sampler.draw(it.pending, mine.frames, chains,
                                                       static_cast<std::size_t>(nodes) / chains, key, condition);
                std::shared_ptr<const DraftSamples> samples;
                if (budget.draws)
                    samples = std::make_shared<const DraftSamples>(
                        samples_of(drawn, law_of(mine.sampler, drawn, mine.frames)));
                return {it.sequence, std::move(drawn.tree), std::move(samples)};
            }
            case CtcTree::best_first:
            default: return {it.sequence, mine.best_first.tree(it.pending, mine.frames, nodes, condition)};
        }
    }

    /// Tells the prediction network what it begins from, for every sequence; see CtcPrediction::start.
    std::vector<float> start(std::span<const SequenceFeedback> feedback, const DraftBudget& budget) {
        if (!with_.prediction) return {};
        std::vector<CtcPrediction::Text> texts;
        for (const SequenceFeedback& it : feedback) {
            const CtcKnown& known = sequences_.at(it.sequence);
            texts.push_back({known.feature, known.before, it.pending});
        }
        return with_.prediction->start(texts, searches(budget));
    }

    std::span<float> logits_of(std::size_t index) {
        const std::size_t size = static_cast<std::size_t>(config_.frames) * config_.vocabulary.size();
        return std::span(scores_.logits).subspan(index * size, size);
    }
    std::span<const float> gate_of(std::size_t index) const {
        const auto T = static_cast<std::size_t>(config_.frames);
        return std::span(scores_.gate).subspan(index * T, T);
    }

    /// The search of the best-first tree over the whole draft vocabulary, by all who call it inside one run.
    void search(TeamMember& member, Searcher& mine, std::size_t index, const DraftBudget& budget) {
        const std::size_t V = config_.vocabulary.size(), roots = scores_.gate.size() * V;  // where theirs begin
        const auto score = [&](TeamMember& by, std::span<const CtcPrefix> prefixes, float* out, std::int64_t stride) {
            if (prefixes.size() == 1 && prefixes[0].length == 0 &&
                scores_.logits.size() > roots) {  // came with the frames
                if (by.index() == 0) std::copy_n(scores_.logits.data() + roots + index * V, V, out);
                return;
            }
            if (with_.prediction)
                with_.prediction->scores(by, index, prefixes, out, stride, *mine.prediction);
            else if (by.index() == 0)
                std::fill_n(out, std::ssize(prefixes) * stride, 0.0F);  // whatever the prefix
        };
        mine.search.run(member, logits_of(index), gate_of(index), budget.nodes, LeastChances(budget), score,
                        budget.chains);
    }

    /// The tree of sequence `index` of the round from its frames, by the calling thread alone.
    SequenceTree draft(Searcher& mine, const SequenceFeedback& it, std::size_t index, const DraftBudget& budget) {
        const std::size_t V = config_.vocabulary.size();
        const auto logits = logits_of(index);
        const auto gate = gate_of(index);
        if (searches(budget)) {
            TeamMember alone;
            search(alone, mine, index, budget);
            return {it.sequence, mine.search.tree(it.pending, config_.vocabulary)};
        }
        if (with_.prediction) with_.prediction->fold_root(index, logits, *mine.prediction);
        if (options_.tree == CtcTree::per_frame)
            return {it.sequence, per_frame_tree(it.pending, logits, gate, config_.vocabulary, budget.nodes)};
        const DenseFrames dense{logits, gate, V, config_.vocabulary, DenseFrames::Kind::gated_logits};
        mine.builder.build(dense, {static_cast<std::size_t>(options_.top_k), true}, mine.frames);
        if (!with_.prediction) return tree(mine, it, budget, Unconditioned{});
        with_.prediction->choose(mine.frames.tokens(), *mine.prediction);
        return tree(mine, it, budget, [&](const PrefixContext& prefix, std::span<float> factors) {
            with_.prediction->factors(index, prefix, factors, *mine.prediction);
        });
    }

    /// Trees of the round's frames: several sequences are searched at once, one by each of the team; a single one by
    /// all together. No number depends on which.
    std::vector<SequenceTree> drafts(std::span<const SequenceFeedback> feedback, const DraftBudget& budget) {
        std::vector<std::optional<SequenceTree>> trees(feedback.size());
        while (std::ssize(searchers_) < team_->size())
            searchers_.emplace_back().prediction = with_.prediction ? with_.prediction->make_scratch() : nullptr;
        if (feedback.size() == 1 && searches(budget)) {
            Searcher& mine = searchers_[0];
            team_->run([&](TeamMember& member) { search(member, mine, 0, budget); });
            trees[0] = {feedback[0].sequence, mine.search.tree(feedback[0].pending, config_.vocabulary)};
        } else if (feedback.size() == 1 || team_->size() == 1) {
            for (std::size_t i = 0; i < feedback.size(); ++i) trees[i] = draft(searchers_[0], feedback[i], i, budget);
        } else {
            std::atomic<std::size_t> next{0};  // searches differ in length: who is done takes the next
            team_->run([&](TeamMember& member) {
                for (std::size_t i = next++; i < feedback.size(); i = next++)
                    trees[i] = draft(searchers_[static_cast<std::size_t>(member.index())], feedback[i], i, budget);
            });
        }
        std::vector<SequenceTree> all;
        all.reserve(trees.size());
        for (std::optional<SequenceTree>& tree : trees) all.push_back(*std::move(tree));
        return all;
    }

    CtcConfig config_;
    CtcDraftOptions options_;
    std::int64_t vocabulary_ = 0;  ///< the target's
    std::int64_t width_ = 0;       ///< of the features that the network reads
    std::shared_ptr<ThreadTeam> team_;
    CtcBodies with_;  ///< what computes
    std::unordered_map<SequenceId, CtcKnown> sequences_;
    CtcRoundScores scores_;
    std::vector<Searcher> searchers_;  ///< one for each of the team
};

OUTRIDER_INLINE CtcEngine::CtcEngine(CtcConfig config, CtcWeights weights, const TargetHead& head,
                                     const CtcDraftOptions& options) {
    check_ctc_config(config);
    check_ctc_weights(config, weights);
    require(!config.target_fingerprint.empty() || head.fingerprint.empty(), ErrorKind::mismatched_drafter,
            "CtcDraft: the drafter names no target, this one is {}; train one for it with `outrider train`",
            head.fingerprint);
    check_target("CtcDraft", head, config.target_fingerprint, config.target_name, config.hidden, config.vocabulary);
    require(
        config.feature_layers.empty() || config.feature_layers.back() <= head.feature_layers,
        ErrorKind::mismatched_drafter,
        "CtcDraft: it reads the hidden states after layers {}, this target offers those of layers 1 to {} and those "
        "after its final norm; take a drafter without feature layers, or say in TargetHead::feature_layers what the "
        "verifier delivers",
        detail::listed(config.feature_layers), head.feature_layers);
    width_ = ctc_feature_width(config);
    require(options.top_k > 0, "CtcDraft: top_k is {}, expected at least 1", options.top_k);
    const bool kernels = options.kernels && weights.fuse.device().is_cpu() && kernels_fit(config);
    team_ = drafting_team(head, options.threads);
    with_ = kernels ? make_ctc_kernels(config, std::move(weights), head, *team_, options.eight_bits)
                    : make_ctc_tensors(config, std::move(weights), head, {.lane_bytes = options.lane_bytes});
    vocabulary_ = head.vocabulary;
    options_ = options;
    config_ = std::move(config);
    if (kernels) warm_up(*this, width_);
}

OUTRIDER_INLINE std::vector<SequenceTree> CtcEngine::propose(std::span<const SequenceFeedback> feedback,
                                                             DraftBudget budget) {
    if (feedback.empty()) return {};
    const bool alone = options_.tree == CtcTree::best_first && !budget.chains && with_.backend->searches(budget.nodes);
    std::vector<SequenceFeedback> drafted;
    std::vector<CtcRound> rounds = take_up(feedback, with_.prediction && !alone, drafted);
    std::vector<SequenceTree> trees;
    if (!rounds.empty()) trees = of_rounds(rounds, drafted, alone, budget);
    if (trees.size() == feedback.size()) return trees;
    return with_roots(std::move(trees), feedback);
}

/// Trees of these rounds, in their order; none where nothing is to be drafted.
OUTRIDER_INLINE std::vector<SequenceTree> CtcEngine::of_rounds(std::vector<CtcRound>& rounds,
                                                               std::span<const SequenceFeedback> feedback, bool alone,
                                                               const DraftBudget& budget) {
    std::vector<SequenceTree> trees;
    if (alone) {
        std::vector<TokenTree> found = with_.backend->search(rounds, budget.nodes, budget.least_chance());
        for (std::size_t i = 0; i < feedback.size(); ++i) trees.push_back({feedback[i].sequence, std::move(found[i])});
    } else if (budget.nodes > 0) {
        with_.backend->run(rounds, true, start(feedback, budget), scores_);
        trees = drafts(feedback, budget);
    } else {
        with_.backend->run(rounds, false, {}, scores_);
    }
    return trees;
}

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<DraftEngine<CtcConfig>> CtcKind::engine(CtcConfig config, CtcWeights weights,
                                                                        const TargetHead& head,
                                                                        const CtcDraftOptions& options) {
    return std::make_unique<detail::CtcEngine>(std::move(config), std::move(weights), head, options);
}

OUTRIDER_INLINE std::pair<CtcConfig, CtcWeights> CtcKind::read(const std::filesystem::path& folder,
                                                               const TargetHead& head) {
    auto read = read_trained(folder, read_ctc_config, read_ctc_weights);
    move_weights(read.second, head.final_norm.device());
    return read;
}

}  // namespace outrider
