// The tree of n-gram continuations, from the root or from what others drafted.
#pragma once

#include <cstddef>
#include <queue>
#include <vector>

#include <outrider/draft/ngram.hpp>

namespace outrider {

/// Best-first: always the node of largest path probability next, another drafter's or a continuation.
class NgramDraft::Growth {
public:
    /// `history` is only written to where it records the draft.
    Growth(const NgramDraft& drafter, History& history, const TokenTree& drafted);

    /// The answer of TreeExtender::extend.
    [[nodiscard]] TokenTree grow(std::int64_t nodes);

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

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/detail/ngram_growth-inl.hpp>
#endif
