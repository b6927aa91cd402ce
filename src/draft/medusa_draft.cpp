#include <outrider/draft/medusa_draft.hpp>

#include <tuple>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/draft/published_heads.hpp>

#include "head_shape.hpp"
#include "medusa_backend.hpp"
#include "progress.hpp"
#include "score_rows.hpp"

namespace outrider {

struct MedusaDraft::State {
    MedusaConfig config;
    HeadDraftOptions options;
    std::vector<TokenId> vocabulary;  ///< target id of each column
    std::int64_t target_vocabulary = 0;
    std::unique_ptr<ThreadTeam> team;
    std::unique_ptr<MedusaBackend> backend;
    HeadShape shape;
    std::unordered_map<SequenceId, Progress> sequences;
    std::vector<float> scores;
    std::vector<RankedTokens> ranked;

    /// The tree of one sequence from its heads' scores [K, stride]; they are spoiled.
    TokenTree tree(TokenId pending, float* rows, std::size_t stride, std::int64_t nodes) {
        const TreeTemplate* fixed = options.tree == HeadTree::best_first ? nullptr : &shape.of(nodes);
        std::size_t ranks = static_cast<std::size_t>(nodes);
        if (fixed != nullptr) {
            ranks = 0;
            for (const TreeTemplate::Choice& choice : fixed->choices())
                ranks = std::max(ranks, static_cast<std::size_t>(choice.back()) + 1);
        }
        ranked.resize(static_cast<std::size_t>(config.heads));
        for (RankedTokens& depth : ranked) {
            (void)probabilities(rows, static_cast<std::int64_t>(vocabulary.size()), static_cast<std::int64_t>(stride));
            rank_row(rows, vocabulary, ranks, depth);
            rows += stride;
        }
        return fixed == nullptr ? product_tree(pending, ranked, nodes) : template_tree(pending, ranked, *fixed, nodes);
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
        state_->team = std::make_unique<ThreadTeam>(options.threads);
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

std::vector<SequenceTree> MedusaDraft::do_propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) {
    State& state = *state_;
    check_progress("MedusaDraft", feedback, state.sequences, state.config.hidden, state.target_vocabulary);
    std::vector<at::Tensor> newest;
    for (const SequenceFeedback& it : feedback) {
        state.sequences[it.sequence] = {it.committed, it.pending};
        if (!it.tokens.empty()) newest.push_back(it.features[it.features.size(0) - 1]);
    }
    const std::size_t stride = padded_row(state.vocabulary.size());
    if (!newest.empty() && budget.nodes > 0)
        state.backend->run(at::stack(newest), static_cast<std::int64_t>(stride), state.scores);
    std::vector<SequenceTree> trees;
    float* rows = state.scores.data();
    for (const SequenceFeedback& it : feedback) {
        // Nothing committed: there is no feature to draft from.
        const bool draft = budget.nodes > 0 && !it.tokens.empty();
        trees.push_back({it.sequence, draft ? state.tree(it.pending, rows, stride, budget.nodes)
                                            : TokenTree::root_only(it.pending)});
        if (draft) rows += static_cast<std::size_t>(state.config.heads) * stride;
    }
    return trees;
}

void MedusaDraft::do_forget(SequenceId sequence) { state_->sequences.erase(sequence); }

}  // namespace outrider
