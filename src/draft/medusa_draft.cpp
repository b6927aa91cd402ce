#include <outrider/draft/medusa_draft.hpp>

#include <algorithm>
#include <tuple>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/draft/published_heads.hpp>

#include "head_shape.hpp"
#include "medusa_backend.hpp"
#include "path_sampling.hpp"
#include "progress.hpp"
#include "row_team.hpp"
#include "score_rows.hpp"

namespace outrider {

struct MedusaDraft::State {
    MedusaConfig config;
    HeadDraftOptions options;
    std::vector<TokenId> vocabulary;  ///< target id of each column
    std::int64_t target_vocabulary = 0;
    std::shared_ptr<ThreadTeam> team;
    std::unique_ptr<MedusaBackend> backend;
    HeadShape shape;
    std::unordered_map<SequenceId, Progress> sequences;
    std::vector<float> scores;
    std::vector<RankedTokens> ranked;
    PathSampler sampler;

    /// Sampled trees of `starts`, whose heads' scores stand in this order. A Medusa head sees nothing of the path.
    std::vector<SequenceTree> draw(std::span<const PathSampler::Start> starts, std::size_t stride, std::int64_t nodes) {
        return sampler.draw(starts, vocabulary, config.heads, nodes, options,
                            [&](std::span<const PathRow> rows, float* out) {
                                for (std::size_t i = 0; i < rows.size(); ++i) {
                                    const std::size_t row = rows[i].sequence * static_cast<std::size_t>(config.heads) +
                                                            rows[i].path.size() - 1;
                                    std::copy_n(scores.data() + row * stride, stride, out + i * stride);
                                }
                            });
    }

    /// The likeliest tokens of `count` rows of scores, those of all sequences that draft, heads within sequences; the
    /// scores are spoiled.
    void rank(std::size_t count, std::size_t stride, std::int64_t nodes) {
        std::size_t ranks = static_cast<std::size_t>(nodes);
        if (options.tree != HeadTree::best_first) {
            ranks = 0;
            for (const TreeTemplate::Choice& choice : shape.of(nodes).choices())
                ranks = std::max(ranks, static_cast<std::size_t>(choice.back()) + 1);
        }
        ranked.resize(count);
        for_each_row(team.get(), count, [&](std::size_t i) {
            float* row = scores.data() + i * stride;
            (void)probabilities(row, std::ssize(vocabulary), static_cast<std::int64_t>(stride));
            rank_row(row, vocabulary, ranks, ranked[i]);
        });
    }

    /// The tree of the `index`-th sequence that drafts, once its rows are ranked.
    TokenTree tree(TokenId pending, std::size_t index, std::int64_t nodes) {
        const auto heads = static_cast<std::size_t>(config.heads);
        const auto mine = std::span(ranked).subspan(index * heads, heads);
        return options.tree == HeadTree::best_first ? product_tree(pending, mine, nodes)
                                                    : template_tree(pending, mine, shape.of(nodes), nodes);
    }
};

MedusaDraft::MedusaDraft(MedusaConfig config, const MedusaWeights& weights, const TargetHead& head,
                         const HeadDraftOptions& options)
    : state_(std::make_unique<State>()) {
    check_medusa_config(config);
    check_medusa_weights(config, weights);
    check_target("MedusaDraft", head, config.target_fingerprint, config.target_name, config.hidden, config.vocabulary);
    state_->vocabulary = draft_ids(config.vocabulary, head.vocabulary);
    const std::int64_t columns = std::ssize(state_->vocabulary);
    for (const at::Tensor& output : weights.output)
        require(output.size(0) == columns, "MedusaDraft: an output matrix has {} rows, the target {} tokens",
                output.size(0), columns);
    state_->shape = HeadShape("MedusaDraft", options, config.accuracies, config.heads, columns);
    if (options.kernels && weights.heads[0][0].bias.device().is_cpu()) {
        state_->team = drafting_team(head, options.threads);
        state_->backend = make_medusa_kernels(config, weights, head, *state_->team);
    } else
        state_->backend = make_medusa_aten(config, weights, head);
    state_->target_vocabulary = head.vocabulary;
    state_->options = options;
    state_->config = std::move(config);
}

MedusaDraft::~MedusaDraft() = default;
MedusaDraft::MedusaDraft(MedusaDraft&&) noexcept = default;
MedusaDraft& MedusaDraft::operator=(MedusaDraft&&) noexcept = default;

MedusaDraft MedusaDraft::load(const std::filesystem::path& folder, const TargetHead& head,
                              const HeadDraftOptions& options) {
    MedusaConfig config;
    MedusaWeights weights;
    if (is_published(folder))
        std::tie(config, weights) = read_published_medusa(folder);
    else
        config = read_medusa_config(folder), weights = read_medusa_weights(folder, config);
    for (auto& [name, weight] : weights.named()) *weight = weight->to(head.final_norm.device());
    return MedusaDraft(std::move(config), weights, head, options);
}

const MedusaConfig& MedusaDraft::config() const { return state_->config; }

DraftDraws MedusaDraft::draws() const { return draws_of(state_->options); }

std::vector<SequenceTree> MedusaDraft::do_propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) {
    State& state = *state_;
    check_progress("MedusaDraft", feedback, state.sequences, state.config.hidden, state.target_vocabulary);
    std::vector<at::Tensor> newest;
    for (const SequenceFeedback& it : feedback) {
        state.sequences[it.sequence] = {it.committed, it.pending};
        if (!it.tokens.empty()) newest.push_back(it.features[it.features.size(0) - 1].slice(0, 0, state.config.hidden));
    }
    const std::size_t stride = padded_row(state.vocabulary.size());
    if (!newest.empty() && budget.nodes > 0)
        state.backend->run(at::stack(newest), static_cast<std::int64_t>(stride), state.scores);
    std::vector<SequenceTree> trees, drawn;
    if (state.options.tree == HeadTree::sampled && budget.nodes > 0)
        drawn = state.draw(starts_of(feedback), stride, budget.nodes);
    else if (!newest.empty() && budget.nodes > 0)
        state.rank(newest.size() * static_cast<std::size_t>(state.config.heads), stride, budget.nodes);
    std::size_t next = 0;
    for (const SequenceFeedback& it : feedback) {
        // Nothing committed: there is no feature to draft from.
        const bool draft = budget.nodes > 0 && !it.tokens.empty();
        if (draft && !drawn.empty()) {
            trees.push_back(std::move(drawn[next++]));
            continue;
        }
        trees.push_back({it.sequence, draft ? state.tree(it.pending, next++, budget.nodes)
                                            : TokenTree::root_only(it.pending)});
    }
    return trees;
}

void MedusaDraft::do_forget(SequenceId sequence) { state_->sequences.erase(sequence); }

}  // namespace outrider
