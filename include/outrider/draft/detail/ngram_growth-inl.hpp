// The tree of n-gram continuations, from the root or from what others drafted: a part of ngram-inl.hpp.
#pragma once

#include <outrider/draft/ngram.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <queue>
#include <utility>
#include <vector>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

/// Best-first: always the node of largest path probability next, another drafter's or a continuation.
class NgramDraft::Growth {
public:
    /// `history` is only written to where it records the draft.
    Growth(const NgramDraft& drafter, History& history, const TokenTree& drafted);

    /// The answer of TreeExtender::extend.
    [[nodiscard]] TokenTree grow(const DraftBudget& budget);

private:
    struct Open {
        double path = 0;        ///< log probability from the root
        std::size_t order = 0;  ///< the earlier one of equals goes first
        NodeIndex parent = 0;
        NodeIndex node = kNoNode;  ///< where it stands already
        Continuation what;         ///< no token: the others' alone
        Kind kind;
        bool operator<(const Open& other) const { return path != other.path ? path < other.path : order > other.order; }
    };

    void expand(NodeIndex node, double path, const Continuation* came_from);
    void continue_context(NodeIndex node, double path);
    void open_drafted(NodeIndex node, double path);
    void look_up(NodeIndex node, const Continuation* came_from);
    [[nodiscard]] Kind kind_of(std::size_t rank) const;

    const NgramDraft& drafter_;
    History& history_;
    const TokenTree& drafted_;
    TokenTree::Builder tree_;
    std::vector<float> said_;           ///< [nodes of the tree] log_q of this drafter
    std::vector<Continuation> source_;  ///< [nodes of drafted_]
    std::priority_queue<Open> open_;
    std::size_t opened_ = 0;
    std::vector<Continuation> found_;  ///< continuations of the node being expanded
    std::vector<TokenId> context_;
};

OUTRIDER_INLINE NgramDraft::Growth::Growth(const NgramDraft& drafter, History& history, const TokenTree& drafted)
    : drafter_(drafter),
      history_(history),
      drafted_(drafted),
      tree_(drafted.token(0), drafted.size()),
      said_(drafted.size(), -std::numeric_limits<float>::infinity()),
      source_(drafted.size()) {
    said_[0] = 0;
    for (std::size_t i = 1; i < drafted.size(); ++i) tree_.add(drafted.parents()[i], drafted.tokens()[i], 0);
}

OUTRIDER_INLINE TokenTree NgramDraft::Growth::grow(const DraftBudget& budget) {
    if (budget.nodes > 0) {
        history_.drafted.clear();
        for (std::size_t i = 1; i < drafted_.size(); ++i)
            history_.drafted.push_back({drafted_.tokens()[i], drafted_.parents()[i], std::nullopt});
        expand(0, 0.0, nullptr);
    }
    for (std::int64_t taken = 0; !open_.empty() && taken < budget.nodes; ++taken) {
        const Open best = open_.top();
        open_.pop();
        if (budget.chains) open_ = {};  // a chain turns back nowhere
        NodeIndex node = best.node;
        if (node == kNoNode) {
            node = tree_.add(best.parent, best.what.token, 0);
            said_.push_back(static_cast<float>(std::log(drafter_.probability(best.kind))));
            history_.drafted.push_back({best.what.token, best.parent, best.kind});
        }
        expand(node, best.path, best.what.token == kNoToken ? nullptr : &best.what);
    }
    const TokenTree& all = tree_.view();
    TokenTree::Builder answer(all.token(0), all.size());
    for (std::size_t i = 1; i < all.size(); ++i) answer.add(all.parents()[i], all.tokens()[i], said_[i]);
    return std::move(answer).build();
}

OUTRIDER_INLINE void NgramDraft::Growth::expand(NodeIndex node, double path, const Continuation* came_from) {
    look_up(node, came_from);
    continue_context(node, path);
    if (static_cast<std::size_t>(node) < drafted_.size()) open_drafted(node, path);
}

OUTRIDER_INLINE void NgramDraft::Growth::look_up(NodeIndex node, const Continuation* came_from) {
    const std::vector<TokenId>& text = history_.text;
    const std::size_t tail = std::min(text.size(), static_cast<std::size_t>(kLongest));
    context_.assign(text.end() - static_cast<std::ptrdiff_t>(tail), text.end());
    const auto depth = static_cast<std::size_t>(tree_.view().depth(node));
    context_.resize(tail + depth);
    for (std::size_t d = depth; d > 0; --d, node = tree_.view().parent(node))
        context_[tail + d - 1] = tree_.view().token(node);
    drafter_.continuations(history_, context_, came_from, found_);
}

OUTRIDER_INLINE NgramDraft::Kind NgramDraft::Growth::kind_of(std::size_t rank) const {
    const bool contested = found_.size() > 1 && bucket_of(found_[1].match) == bucket_of(found_[0].match);
    const auto agreement = static_cast<std::uint8_t>(contested ? 2 : found_[0].votes > 1 ? 1 : 0);
    const std::size_t place = found_[rank].match == 0 ? kRanks - 1 : std::min(rank, kRanks - 1);  // 0: a bigram
    return {bucket_of(found_[rank].match), static_cast<std::uint8_t>(place), agreement};
}

/// What was found behind a node: what stands there already gets a word, the rest waits for its turn.
OUTRIDER_INLINE void NgramDraft::Growth::continue_context(NodeIndex node, double path) {
    const bool others = static_cast<std::size_t>(node) < drafted_.size();
    for (std::size_t rank = 0; rank < found_.size(); ++rank) {
        const Kind kind = kind_of(rank);
        const double log_q = std::log(drafter_.probability(kind));
        const NodeIndex there = others ? drafted_.child(node, found_[rank].token) : kNoNode;
        if (there == kNoNode) {
            open_.push({path + log_q, opened_++, node, kNoNode, found_[rank], kind});
            continue;
        }
        const auto at = static_cast<std::size_t>(there);
        said_[at] = static_cast<float>(log_q);
        source_[at] = found_[rank];
        history_.drafted[at - 1].kind = kind;
    }
}

/// The other drafters' children of a node. Where this one says the same, either may be right.
OUTRIDER_INLINE void NgramDraft::Growth::open_drafted(NodeIndex node, double path) {
    for (std::size_t i = static_cast<std::size_t>(node) + 1; i < drafted_.size(); ++i) {
        if (drafted_.parents()[i] != node) continue;
        const double miss = (1 - std::exp(double(drafted_.log_q()[i]))) * (1 - std::exp(double(said_[i])));
        open_.push({path + std::log(std::clamp(1 - miss, 1e-5, 0.999)),
                    opened_++,
                    node,
                    static_cast<NodeIndex>(i),
                    source_[i],
                    {}});
    }
}

}  // namespace outrider
