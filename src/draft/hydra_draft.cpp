#include <outrider/draft/hydra_draft.hpp>

#include <tuple>
#include <unordered_map>

#include <outrider/core/error.hpp>
#include <outrider/draft/published_heads.hpp>

#include "head_shape.hpp"
#include "hydra_backend.hpp"
#include "path_sampling.hpp"
#include "progress.hpp"
#include "row_team.hpp"
#include "score_rows.hpp"

namespace outrider {

struct HydraDraft::State {
    HydraConfig config;
    HeadDraftOptions options;
    std::vector<TokenId> vocabulary;  ///< target id of each column
    std::int64_t target_vocabulary = 0;
    std::shared_ptr<ThreadTeam> team;
    std::unique_ptr<HydraBackend> backend;
    HeadShape shape;
    std::unordered_map<SequenceId, Progress> sequences;
    std::unordered_map<SequenceId, std::unique_ptr<HydraCache>> caches;
    PathSearch search;
    PathSampler sampler;

    /// Trees of the sequences of the last take_up.
    std::vector<SequenceTree> trees(std::span<const PathSampler::Start> starts, std::int64_t nodes) {
        const auto stride = static_cast<std::int64_t>(padded_row(vocabulary.size()));
        const auto score = [&](std::span<const PathRow> rows, float* out) { backend->scores(rows, out, stride); };
        if (options.tree == HeadTree::sampled)
            return sampler.draw(starts, vocabulary, config.heads, nodes, options, score);
        std::vector<TokenId> pending;
        for (const PathSampler::Start& start : starts) pending.push_back(start.pending);
        std::vector<TokenTree> found = options.tree == HeadTree::best_first
                                           ? search.best_first(pending, vocabulary, config.heads, nodes, score)
                                           : search.ranked(pending, vocabulary, shape.of(nodes), nodes, score);
        std::vector<SequenceTree> trees;
        for (std::size_t i = 0; i < starts.size(); ++i) trees.push_back({starts[i].sequence, std::move(found[i])});
        return trees;
    }
};

HydraDraft::HydraDraft(HydraConfig config, const HydraWeights& weights, const TargetHead& head,
                       const HeadDraftOptions& options)
    : state_(std::make_unique<State>()) {
    check_hydra_config(config);
    check_hydra_weights(config, weights);
    check_target("HydraDraft", head, config.target_fingerprint, config.target_name, config.hidden, config.vocabulary);
    state_->vocabulary = draft_ids(config.vocabulary, head.vocabulary);
    const std::int64_t columns = std::ssize(state_->vocabulary);
    for (const auto* outputs : {&weights.output, &weights.output_bias})
        for (const at::Tensor& output : *outputs)
            require(output.size(0) == columns, "HydraDraft: an output matrix or bias has {} rows, the target {} tokens",
                    output.size(0), columns);
    state_->shape = HeadShape("HydraDraft", options, config.accuracies, config.heads, columns);
    if (options.kernels && weights.heads[0][0].bias.device().is_cpu() && kernels_fit(config)) {
        state_->team = drafting_team(head, options.threads);
        state_->search.use(state_->team.get());
        state_->backend = make_hydra_kernels(config, weights, head, *state_->team);
    } else
        state_->backend = make_hydra_aten(config, weights, head);
    state_->target_vocabulary = head.vocabulary;
    state_->options = options;
    state_->config = std::move(config);
}

HydraDraft::~HydraDraft() = default;
HydraDraft::HydraDraft(HydraDraft&&) noexcept = default;
HydraDraft& HydraDraft::operator=(HydraDraft&&) noexcept = default;

HydraDraft HydraDraft::load(const std::filesystem::path& folder, const TargetHead& head,
                            const HeadDraftOptions& options) {
    HydraConfig config;
    HydraWeights weights;
    if (is_published(folder))
        std::tie(config, weights) = read_published_hydra(folder);
    else
        config = read_hydra_config(folder), weights = read_hydra_weights(folder, config);
    for (auto& [name, weight] : weights.named()) *weight = weight->to(head.final_norm.device());
    return HydraDraft(std::move(config), weights, head, options);
}

const HydraConfig& HydraDraft::config() const { return state_->config; }

DraftDraws HydraDraft::draws() const { return draws_of(state_->options); }

std::vector<SequenceTree> HydraDraft::do_propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) {
    State& state = *state_;
    check_progress("HydraDraft", feedback, state.sequences, state.config.hidden, state.target_vocabulary);
    std::vector<HydraRound> rounds;
    for (const SequenceFeedback& it : feedback) {
        state.sequences[it.sequence] = {it.committed, it.pending};
        auto& cache = state.caches[it.sequence];
        if (!cache) cache = state.backend->make_cache();
        if (it.tokens.empty()) continue;  // nothing committed: there is no feature to draft from
        rounds.push_back({cache.get(), it.committed, it.features.slice(1, 0, state.config.hidden)});
    }
    const bool draft = budget.nodes > 0;
    std::vector<SequenceTree> drafted;
    if (!rounds.empty()) {
        state.backend->take_up(rounds, draft);
        if (draft) drafted = state.trees(starts_of(feedback), budget.nodes);
    }
    std::vector<SequenceTree> trees;
    std::size_t next = 0;
    for (const SequenceFeedback& it : feedback)
        trees.push_back(draft && !it.tokens.empty() ? std::move(drafted[next++])
                                                    : SequenceTree{it.sequence, TokenTree::root_only(it.pending)});
    return trees;
}

void HydraDraft::do_forget(SequenceId sequence) {
    state_->sequences.erase(sequence);
    state_->caches.erase(sequence);
}

}  // namespace outrider
