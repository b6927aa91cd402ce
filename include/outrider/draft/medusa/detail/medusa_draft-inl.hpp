// Bodies of medusa_draft.hpp.
#pragma once

#include <outrider/draft/medusa/medusa_draft.hpp>

#include <algorithm>
#include <memory>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/draft/medusa/detail/published_medusa.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/published_heads.hpp>

#include <outrider/draft/medusa/detail/medusa_backend.hpp>
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

class MedusaEngine final : public DraftEngine<MedusaConfig> {
public:
    MedusaEngine(MedusaConfig config, const MedusaWeights& weights, const TargetHead& head,
                 const HeadDraftOptions& options);

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override;
    void forget(SequenceId sequence) override { sequences_.erase(sequence); }
    [[nodiscard]] DraftDraws draws() const override { return draws_of(options_); }
    [[nodiscard]] const MedusaConfig& config() const override { return config_; }
    [[nodiscard]] std::size_t weight_bytes() const override { return backend_->weight_bytes(); }

private:
    /// Sampled trees of `starts`, whose heads' scores stand in this order. A Medusa head sees nothing of the path.
    std::vector<SequenceTree> draw(std::span<const PathSampler::Start> starts, std::size_t stride,
                                   const DraftBudget& budget) {
        const auto heads = static_cast<std::size_t>(config_.heads);
        return sampler_.draw(starts, vocabulary_, config_.heads, budget, options_,
                             [&](std::span<const PathRow> rows, float* out) {
                                 for (std::size_t i = 0; i < rows.size(); ++i) {
                                     const std::size_t row = rows[i].sequence * heads + rows[i].path.size() - 1;
                                     std::copy_n(scores_.data() + row * stride, stride, out + i * stride);
                                 }
                             });
    }

    /// Also a chain: it is the best-first tree of each head's likeliest token.
    [[nodiscard]] bool best_first(const DraftBudget& budget) const {
        return options_.tree == HeadTree::best_first || budget.chains;
    }

    /// The likeliest tokens of every head, heads within sequences, for trees that are not sampled.
    void rank(const at::Tensor& features, std::size_t stride, const DraftBudget& budget) {
        std::size_t ranks = budget.chains ? 1 : static_cast<std::size_t>(budget.nodes);
        if (!best_first(budget)) {
            ranks = 0;
            for (const TreeTemplate::Choice& choice : shape_.of(budget.nodes).choices())
                ranks = std::max(ranks, static_cast<std::size_t>(choice.back()) + 1);
        }
        if (backend_->rank(features, static_cast<std::int64_t>(ranks), vocabulary_, ranked_)) return;
        backend_->run(features, static_cast<std::int64_t>(stride), scores_);
        ranked_.resize(static_cast<std::size_t>(features.size(0) * config_.heads));
        for_each_row(team_.get(), ranked_.size(), [&](std::size_t i) {
            float* row = scores_.data() + i * stride;
            (void)probabilities(row, std::ssize(vocabulary_), static_cast<std::int64_t>(stride));
            rank_row(row, vocabulary_, ranks, ranked_[i]);
        });
    }

    /// The tree of the `index`-th sequence that drafts, once its rows are ranked.
    TokenTree tree(TokenId pending, std::size_t index, const DraftBudget& budget) {
        const auto heads = static_cast<std::size_t>(config_.heads);
        const auto mine = std::span(ranked_).subspan(index * heads, heads);
        return best_first(budget) ? product_tree(pending, mine, budget.nodes)
                                  : template_tree(pending, mine, shape_.of(budget.nodes), budget.nodes);
    }

    MedusaConfig config_;
    HeadDraftOptions options_;
    std::vector<TokenId> vocabulary_;  ///< target id of each column
    std::int64_t target_vocabulary_ = 0;
    std::shared_ptr<ThreadTeam> team_;
    std::unique_ptr<MedusaBackend> backend_;
    HeadShape shape_;
    std::unordered_map<SequenceId, Progress> sequences_;
    std::vector<float> scores_;
    std::vector<RankedTokens> ranked_;
    PathSampler sampler_;
};

OUTRIDER_INLINE MedusaEngine::MedusaEngine(MedusaConfig config, const MedusaWeights& weights, const TargetHead& head,
                                           const HeadDraftOptions& options) {
    check_medusa_config(config);
    check_medusa_weights(config, weights);
    check_target("MedusaDraft", head, config.target_fingerprint, config.target_name, config.hidden, config.vocabulary);
    vocabulary_ = draft_ids(config.vocabulary, head.vocabulary);
    const std::int64_t columns = std::ssize(vocabulary_);
    for (const at::Tensor& output : weights.output)
        require(output.size(0) == columns, ErrorKind::mismatched_drafter,
                "MedusaDraft: an output matrix has {} rows, the target {} tokens", output.size(0), columns);
    shape_ = HeadShape("MedusaDraft", options, config.accuracies, config.heads, columns);
    const bool kernels = options.kernels && weights.heads[0][0].bias.device().is_cpu() && kernels_fit(config);
    if (kernels) {
        team_ = drafting_team(head, options.threads);
        backend_ = make_medusa_kernels(config, weights, head, *team_);
    } else
        backend_ = make_medusa_tensors(config, weights, head);
    target_vocabulary_ = head.vocabulary;
    options_ = options;
    config_ = std::move(config);
    if (kernels) warm_up(*this, config_.hidden);
}

OUTRIDER_INLINE std::vector<SequenceTree> MedusaEngine::propose(std::span<const SequenceFeedback> feedback,
                                                                DraftBudget budget) {
    check_progress("MedusaDraft", feedback, sequences_, config_.hidden, target_vocabulary_);
    std::vector<at::Tensor> newest;
    for (const SequenceFeedback& it : feedback) {
        sequences_[it.sequence] = {it.committed, it.pending};
        if (!it.tokens.empty()) newest.push_back(it.features[it.features.size(0) - 1].slice(0, 0, config_.hidden));
    }
    const std::size_t stride = padded_row(vocabulary_.size());
    const bool drafts = !newest.empty() && budget.nodes > 0;
    std::vector<SequenceTree> trees, drawn;
    if (drafts && options_.tree == HeadTree::sampled) {
        backend_->run(aten::stack(newest), static_cast<std::int64_t>(stride), scores_);
        drawn = draw(starts_of(feedback), stride, budget);
    } else if (drafts) {
        rank(aten::stack(newest), stride, budget);
    }
    std::size_t next = 0;
    for (const SequenceFeedback& it : feedback) {
        // Nothing committed: there is no feature to draft from.
        const bool draft = budget.nodes > 0 && !it.tokens.empty();
        if (draft && !drawn.empty()) {
            trees.push_back(std::move(drawn[next++]));
            continue;
        }
        trees.push_back({it.sequence, draft ? tree(it.pending, next++, budget) : TokenTree::root_only(it.pending)});
    }
    return trees;
}

}  // namespace detail

OUTRIDER_INLINE std::unique_ptr<DraftEngine<MedusaConfig>> MedusaKind::engine(MedusaConfig config,
                                                                              MedusaWeights weights,
                                                                              const TargetHead& head,
                                                                              const HeadDraftOptions& options) {
    return std::make_unique<detail::MedusaEngine>(std::move(config), weights, head, options);
}

OUTRIDER_INLINE std::pair<MedusaConfig, MedusaWeights> MedusaKind::read(const std::filesystem::path& folder,
                                                                        const TargetHead& head) {
    auto read = is_published(folder) ? read_published_medusa(folder)
                                     : read_trained(folder, read_medusa_config, read_medusa_weights);
    move_weights(read.second, head.final_norm.device());
    return read;
}

}  // namespace outrider
