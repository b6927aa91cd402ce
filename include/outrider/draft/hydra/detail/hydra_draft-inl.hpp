// Bodies of hydra_draft.hpp.
#pragma once

#include <outrider/draft/hydra/hydra_draft.hpp>

#include <algorithm>
#include <memory>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/draft/hydra/detail/published_hydra.hpp>
#include <outrider/draft/nn/detail/published_heads.hpp>

#include <outrider/draft/hydra/detail/hydra_backend.hpp>
#include <outrider/draft/nn/detail/drafter_files.hpp>
#include <outrider/draft/nn/detail/head_shape.hpp>
#include <outrider/draft/nn/detail/path_sampling.hpp>
#include <outrider/draft/nn/detail/progress.hpp>
#include <outrider/draft/nn/detail/row_team.hpp>
#include <outrider/draft/nn/detail/score_rows.hpp>
#include <outrider/draft/nn/detail/warm_up.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

class HydraEngine final : public DraftEngine<HydraConfig> {
public:
    HydraEngine(HydraConfig config, const HydraWeights& weights, const TargetHead& head,
                const HeadDraftOptions& options);

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override;
    void forget(SequenceId sequence) override {
        sequences_.erase(sequence);
        caches_.erase(sequence);
    }
    [[nodiscard]] DraftDraws draws() const override { return draws_of(options_); }
    [[nodiscard]] const HydraConfig& config() const override { return config_; }
    [[nodiscard]] std::size_t weight_bytes() const override { return backend_->weight_bytes(); }

private:
    /// Trees of the sequences of the last take_up.
    std::vector<SequenceTree> trees(std::span<const PathSampler::Start> starts, const DraftBudget& budget) {
        const std::int64_t nodes = budget.nodes;
        const auto stride = static_cast<std::int64_t>(padded_row(vocabulary_.size()));
        const auto score = [&](std::span<const PathRow> rows, float* out) { backend_->scores(rows, out, stride); };
        if (options_.tree == HeadTree::sampled)
            return sampler_.draw(starts, vocabulary_, config_.heads, budget, options_, score);
        std::vector<TokenId> pending;
        for (const PathSampler::Start& start : starts) pending.push_back(start.pending);
        std::vector<TokenTree> found =
            budget.chains ? search_.ranked(pending, vocabulary_, chain_template(std::min(nodes, config_.heads)), nodes,
                                           score, budget.least_chance())
            : options_.tree == HeadTree::best_first && backend_->searches(nodes)
                ? backend_->search(nodes, budget.least_chance())
            : options_.tree == HeadTree::best_first
                ? search_.best_first(pending, vocabulary_, config_.heads, nodes, LeastChances(budget), score)
                : search_.ranked(pending, vocabulary_, shape_.of(nodes), nodes, score);
        std::vector<SequenceTree> trees;
        for (std::size_t i = 0; i < starts.size(); ++i) trees.push_back({starts[i].sequence, std::move(found[i])});
        return trees;
    }

    HydraConfig config_;
    HeadDraftOptions options_;
    std::vector<TokenId> vocabulary_;  ///< target id of each column
    std::int64_t target_vocabulary_ = 0;
    std::shared_ptr<ThreadTeam> team_;
    std::unique_ptr<HydraBackend> backend_;
    HeadShape shape_;
    std::unordered_map<SequenceId, Progress> sequences_;
    std::unordered_map<SequenceId, std::unique_ptr<HydraCache>> caches_;
    PathSearch search_;
    PathSampler sampler_;
};

OUTRIDER_INLINE HydraEngine::HydraEngine(HydraConfig config, const HydraWeights& weights, const TargetHead& head,
                                         const HeadDraftOptions& options) {
    check_hydra_config(config);
    check_hydra_weights(config, weights);
    check_target("HydraDraft", head, config.target_fingerprint, config.target_name, config.hidden, config.vocabulary);
    vocabulary_ = draft_ids(config.vocabulary, head.vocabulary);
    const std::int64_t columns = std::ssize(vocabulary_);
    for (const auto* outputs : {&weights.output, &weights.output_bias})
        for (const at::Tensor& output : *outputs)
            require(output.size(0) == columns, ErrorKind::mismatched_drafter,
                    "HydraDraft: an output matrix or bias has {} rows, the target {} tokens", output.size(0), columns);
    shape_ = HeadShape("HydraDraft", options, config.accuracies, config.heads, columns);
    const bool kernels = options.kernels && weights.heads[0][0].bias.device().is_cpu() && kernels_fit(config);
    if (kernels) {
        team_ = drafting_team(head, options.threads);
        search_.use(team_.get());
        backend_ = make_hydra_kernels(config, weights, head, *team_, options.eight_bits);
    } else
        backend_ = make_hydra_tensors(config, weights, head, options.lane_bytes);
    target_vocabulary_ = head.vocabulary;
    options_ = options;
    config_ = std::move(config);
    if (kernels) warm_up(*this, config_.hidden);
}

OUTRIDER_INLINE std::vector<SequenceTree> HydraEngine::propose(std::span<const SequenceFeedback> feedback,
                                                               DraftBudget budget) {
    check_progress("HydraDraft", feedback, sequences_, config_.hidden, target_vocabulary_);
    std::vector<HydraRound> rounds;
    std::vector<SequenceFeedback> drafting;
    for (const SequenceFeedback& it : feedback) {
        sequences_[it.sequence] = {it.committed, it.pending};
        auto& cache = caches_[it.sequence];
        if (!cache) cache = backend_->make_cache();
        if (it.tokens.empty()) continue;  // nothing committed: there is no feature to draft from
        if (!backend_->has_room(*cache, it.committed)) continue;
        rounds.push_back({cache.get(), it.committed, it.features.slice(1, 0, config_.hidden), it.pending});
        drafting.push_back(it);
    }
    const bool draft = budget.nodes > 0;
    std::vector<SequenceTree> drafted;
    if (!rounds.empty()) {
        backend_->take_up(rounds, draft);
        if (draft) drafted = trees(starts_of(drafting), budget);
    }
    return with_roots(std::move(drafted), feedback);
}

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<DraftEngine<HydraConfig>> HydraKind::engine(HydraConfig config, HydraWeights weights,
                                                                            const TargetHead& head,
                                                                            const HeadDraftOptions& options) {
    return std::make_unique<detail::HydraEngine>(std::move(config), weights, head, options);
}

OUTRIDER_INLINE std::pair<HydraConfig, HydraWeights> HydraKind::read(const std::filesystem::path& folder,
                                                                     const TargetHead& head) {
    auto read = is_published(folder) ? read_published_hydra(folder)
                                     : read_trained(folder, read_hydra_config, read_hydra_weights);
    move_weights(read.second, head.final_norm.device());
    return read;
}

}  // namespace outrider
