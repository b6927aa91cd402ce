// Bodies of lm.hpp.
#pragma once

#include <outrider/draft/lm.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/tree/detail/keep_best.hpp>

#include <outrider/draft/detail/lm_growing-inl.hpp>
#include <outrider/draft/detail/text_progress.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail::lm {

inline constexpr std::size_t kPromptRows = 512;  // a prompt runs in forwards of at most so many rows
inline constexpr std::size_t kFewRows = 16;      // fewer rows than this go with the pending token's

}  // namespace detail::lm

OUTRIDER_INLINE LmDraft::LmDraft(std::unique_ptr<CausalModel> model, const TargetHead& target,
                                 const LmDraftOptions& options)
    : model_(std::move(model)), options_(options) {
    require(model_ != nullptr, "LmDraft: the model is null; pass one that owns a checkpoint");
    require(model_->tokenizer() == target.tokenizer,
            "LmDraft: the model has another tokenizer ({}) than the target ({}), so its tokens mean other text; take a "
            "checkpoint of the same family",
            model_->tokenizer(), target.tokenizer);
    vocabulary_ = static_cast<std::size_t>(std::min(model_->vocabulary(), target.vocabulary));
    require(options.max_depth >= 1 && options.width >= 1 && options.top_k >= 1 && options.chains >= 1,
            "LmDraftOptions: depth {}, width {}, top_k {}, chains {}; expected at least 1 of each", options.max_depth,
            options.width, options.top_k, options.chains);
    require(options.temperature >= 0,
            "LmDraftOptions: temperature {}, expected 0 (all on its most probable token) or more", options.temperature);
}

OUTRIDER_INLINE DraftDraws LmDraft::draws() const {
    if (options_.tree != LmTree::sampled)
        return options_.tree == LmTree::chain ? DraftDraws::certain : DraftDraws::none;
    return options_.chains == 1 ? DraftDraws::chain : DraftDraws::independent;
}

OUTRIDER_INLINE void LmDraft::forget(SequenceId sequence) {
    known_.erase(sequence);
    model_->release(sequence);
}

OUTRIDER_INLINE void LmDraft::take_up(const SequenceFeedback& f) {
    Known& known = known_[f.sequence];
    detail::check_continues("LmDraft", known.text, f, [&] { forget(f.sequence); });
    if (!known.text.empty()) known.text.pop_back();  // the pending token: it is committed now
    known.text.insert(known.text.end(), f.tokens.begin(), f.tokens.end());
    known.text.push_back(f.pending);
    const auto [at, end] =
        std::mismatch(known.held.begin(), known.held.end(), known.text.begin(), known.text.end() - 1);
    const auto common = at - known.held.begin();
    if (at == known.held.end()) return;
    model_->truncate(f.sequence, common);
    known.held.resize(static_cast<std::size_t>(common));
}

OUTRIDER_INLINE std::vector<SequenceTree> LmDraft::propose(std::span<const SequenceFeedback> feedback,
                                                           DraftBudget budget) {
    for (const SequenceFeedback& f : feedback) take_up(f);
    std::vector<Growing> growing;
    for (const SequenceFeedback& f : feedback) {
        Known& known = known_.at(f.sequence);
        const std::int64_t chains =
            options_.tree == LmTree::sampled && !budget.chains
                ? std::clamp(options_.chains, std::int64_t{1}, std::max<std::int64_t>(budget.nodes, 1))
                : 1;
        const auto room = model_->context() - static_cast<std::int64_t>(known.text.size());
        Growing one;
        one.sequence = f.sequence, one.known = &known, one.committed = f.committed, one.nodes = budget.nodes;
        one.depth = std::min({options_.max_depth, budget.nodes / chains, room});
        one.is_chain =
            budget.chains || options_.tree == LmTree::chain || (options_.tree == LmTree::sampled && chains == 1);
        one.tree.push_back({f.pending, kNoNode, 0, 0.0, 0.0, -1});
        if (options_.tree == LmTree::sampled && one.depth > 0) {
            one.chains.resize(static_cast<std::size_t>(chains), {{}, true});
            one.ends.assign(static_cast<std::size_t>(chains), 0);
            if (budget.draws) one.law = std::make_shared<ListedLaw>();
        }
        if (one.depth > 0) one.level.push_back(0);
        growing.push_back(std::move(one));
    }
    catch_up(growing);
    for (std::int64_t depth = 0; depth < options_.max_depth; ++depth) forward(growing);
    std::vector<SequenceTree> trees;
    for (Growing& one : growing) trees.push_back(finish(one, budget.draws));
    return trees;
}

/// Brings caches so near to the pending token that the rest runs with it.
OUTRIDER_INLINE void LmDraft::catch_up(std::vector<Growing>& growing) {
    for (bool more = true; more;) {
        std::vector<CausalModel::Rows> rows;
        std::size_t left = detail::lm::kPromptRows;
        for (const Growing& one : growing) {
            if (one.level.empty() || left == 0) continue;
            const auto missing = std::span<const TokenId>(one.known->text).subspan(one.known->held.size());
            if (missing.size() <= detail::lm::kFewRows) continue;
            rows.push_back({one.sequence, missing.first(std::min(left, missing.size() - 1))});
            left -= rows.back().tokens.size();
        }
        more = !rows.empty();
        if (more) (void)model_->forward(rows, false);
        for (const CausalModel::Rows& one : rows) {
            model_->keep(one.sequence, static_cast<std::int64_t>(one.tokens.size()));
            Known& known = known_.at(one.sequence);
            known.held.insert(known.held.end(), one.tokens.begin(), one.tokens.end());
        }
    }
}

/// One forward for all sequences whose level is not empty, and what it says of the next level.
OUTRIDER_INLINE void LmDraft::forward(std::vector<Growing>& growing) {
    std::vector<CausalModel::Rows> rows;
    std::vector<Growing*> owners;
    for (Growing& one : growing) {
        if (one.level.empty()) continue;
        one.write_rows();
        rows.push_back({one.sequence, one.tokens, one.parents});
        owners.push_back(&one);
    }
    if (rows.empty()) return;
    std::vector<std::int64_t> asked;
    std::int64_t place = 0;
    for (const Growing* one : owners)
        for (const NodeIndex node : one->asked) {
            if (node != kNoNode) asked.push_back(place);
            ++place;
        }
    const at::Tensor logits = model_->forward_for(rows, asked);
    const float* row = logits.const_data_ptr<float>();
    for (Growing* one : owners) {
        keep_rows(*one);
        expand(*one, row);
        row += (std::ssize(one->asked) - std::ranges::count(one->asked, kNoNode)) * logits.size(1);
        next_level(*one);
    }
}

/// The cache keeps chains alone: all rows of one, else those of the text.
OUTRIDER_INLINE void LmDraft::keep_rows(Growing& one) {
    const bool first = one.level.front() == 0;
    const std::size_t kept = one.is_chain ? one.tokens.size() : first ? one.tokens.size() - 1 : 0;
    model_->keep(one.sequence, static_cast<std::int64_t>(kept));
    one.known->held.insert(one.known->held.end(), one.tokens.begin(),
                           one.tokens.begin() + static_cast<std::ptrdiff_t>(kept));
}

/// Candidates after each node that was asked about, whose logits these are in order.
OUTRIDER_INLINE void LmDraft::expand(Growing& one, const float* logits) {
    const std::int64_t width = model_->vocabulary();
    std::vector<std::int32_t> best;
    std::vector<TokenId> tokens;
    std::vector<double> q;
    for (std::size_t i = 0; i < one.asked.size(); ++i) {
        if (one.asked[i] == kNoNode) continue;
        const std::span<const float> row(logits, vocabulary_);
        logits += width;
        if (top_k_.select(row, static_cast<std::size_t>(options_.top_k), best) != TopK::Row::usable) continue;
        tokens.assign(best.begin(), best.end());
        q.clear();
        const double top = row[static_cast<std::size_t>(best[0])];
        for (const std::int32_t b : best)
            q.push_back(options_.temperature == 0.0
                            ? (q.empty() ? 1.0 : 0.0)
                            : std::exp((double(row[static_cast<std::size_t>(b)]) - top) / options_.temperature));
        const double sum = std::accumulate(q.begin(), q.end(), 0.0);
        for (double& x : q) x /= sum;
        if (options_.tree == LmTree::sampled)
            sample(one, one.asked[i], tokens, q);
        else
            choose(one, one.asked[i], tokens, q);
    }
}

OUTRIDER_INLINE void LmDraft::choose(Growing& one, NodeIndex node, std::span<const TokenId> tokens,
                                     std::span<const double> q) {
    const std::size_t count = one.is_chain ? 1 : tokens.size();
    for (std::size_t c = 0; c < count; ++c)
        if (q[c] > 0) one.add(node, tokens[c], std::log(q[c]));
}

/// Every chain that stands at `node` draws its next token.
OUTRIDER_INLINE void LmDraft::sample(Growing& one, NodeIndex node, std::span<const TokenId> tokens,
                                     std::span<const double> q) {
    std::vector<TokenShare> shares;
    for (std::size_t c = 0; c < tokens.size(); ++c)
        if (q[c] > 0) shares.push_back({tokens[c], q[c]});
    if (one.law) one.law->add(one.path_of(node), shares);
    const RandomKey key(options_.seed, static_cast<std::uint64_t>(one.sequence), one.committed,
                        static_cast<std::uint64_t>(RandomPurpose::draft));
    for (std::size_t i = 0; i < one.ends.size(); ++i) {
        if (one.ends[i] != node) continue;
        const auto drawn = static_cast<std::uint64_t>(one.at(node).depth);
        const double u = key.uniform(i * static_cast<std::uint64_t>(options_.max_depth) + drawn);
        const std::size_t c = draw_share(shares, u);
        one.ends[i] = one.add(node, shares[c].token, std::log(shares[c].q));
        one.chains[i].tokens.push_back(shares[c].token);
    }
}

/// Which nodes the next forward continues: none where the depth is reached.
OUTRIDER_INLINE void LmDraft::next_level(Growing& one) const {
    const std::int64_t depth = one.at(one.level.front()).depth + 1;
    one.level.clear();
    if (depth >= one.depth) return;
    std::vector<NodeIndex> order(one.tree.size() - 1);
    std::iota(order.begin(), order.end(), 1);
    if (options_.tree == LmTree::best_first) {  // what is not among the best so far cannot come among them later
        std::stable_sort(order.begin(), order.end(),
                         [&](NodeIndex a, NodeIndex b) { return one.at(a).path > one.at(b).path; });
        if (std::ssize(order) > one.nodes) order.resize(static_cast<std::size_t>(one.nodes));
    }
    for (const NodeIndex node : order) {
        const bool full = options_.tree == LmTree::best_first && std::ssize(one.level) >= options_.width;
        if (one.at(node).depth == depth && !full) one.level.push_back(node);
    }
}

/// The most probable nodes; all of them where they were drawn, or one chain.
OUTRIDER_INLINE SequenceTree LmDraft::finish(Growing& one, bool draws) const {
    const bool ranked = options_.tree == LmTree::best_first;
    SequenceTree result{one.sequence, keep_best(
                                          one.tree.front().token, one.tree.size(), one.nodes,
                                          [&](std::size_t i) { return ranked ? one.tree[i].path : 0.0; },
                                          [&](std::size_t i) {
                                              const Growing::Node& node = one.tree[i];
                                              return DraftNode{node.parent, node.token, static_cast<float>(node.log_q)};
                                          })};
    if (result.tree.drafted() == 0) return result;
    if (!draws) return result;
    if (one.law != nullptr)
        result.samples = std::make_shared<const DraftSamples>(DraftSamples::from_chains(one.law, one.chains));
    else if (options_.tree == LmTree::chain)
        result.samples = std::make_shared<const DraftSamples>(DraftSamples::chosen(result.tree));
    return result;
}

}  // namespace outrider
