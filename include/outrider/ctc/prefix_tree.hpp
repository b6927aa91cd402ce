// The draft tree: the N collapsed prefixes of largest probability, found best first. Psi(l c) <= Psi(l), so that these
// prefixes are closed under "without the last token", and no tree of N nodes has a larger expected accepted length
// under the drafter's own belief (the sum of Psi over its nodes).
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Best-first search with reusable scratch. Keep one per thread; after the first calls it allocates nothing but the
/// tree it returns.
///
///     PrefixTreeSearch search;                                        // a member of the drafter
///     TokenTree plain = search.tree(pending, frames, 16);             // plain frames
///     TokenTree tree = search.tree(pending, frames, 16, [&](const PrefixContext& l, std::span<float> factors) {
///         const TokenId last = l.tokens.empty() ? pending : l.tokens.back();
///         for (std::size_t c = 0; c < factors.size(); ++c) factors[c] = ...;   // f_l(c) >= 0 of frames.tokens()[c]
///     });
///
/// The condition is called once for each prefix that is expanded: the root first, a prefix always after its parent, at
/// most `nodes` times. See PrefixContext for what it gets and prefix_forward.hpp for what the factors do.
///
/// How it works: a list of the N largest prefixes discovered so far, in order. The cursor walks down the list; the
/// entry under it is final, because its children and those of all later entries cannot be larger. Children enter the
/// list only if they beat its last entry once it is full. This is the pruned heap of best-first search in one array.
/// Order: larger Psi first, then earlier parent, then smaller candidate index; the result is a function of the input.
template <typename Scalar>
class BasicPrefixTreeSearch {
public:
    using Frames = BasicCtcFrames<Scalar>;

    /// One drafted node; node i of the search is node i + 1 of the TokenTree.
    struct Node {
        double psi;              ///< probability that the collapsed draft starts with this prefix
        Scalar q;                ///< its conditional probability given the parent
        NodeIndex parent;        ///< 0 is the root
        std::int32_t candidate;  ///< index into frames.tokens()
    };

    /// The `nodes` most probable prefixes (fewer if fewer have a probability above zero) in descending order of psi,
    /// parents before children. Valid until the next call.
    template <PrefixCondition<Scalar> Condition = Unconditioned>
    std::span<const Node> search(const Frames& frames, std::int64_t nodes, Condition&& condition = {}) {
        constexpr bool plain = std::same_as<std::remove_cvref_t<Condition>, Unconditioned>;
        limit_ = nodes > 0 ? static_cast<std::size_t>(nodes) : 0;
        nodes_.clear();
        if (limit_ == 0 || frames.frames() == 0 || frames.candidates() == 0) return nodes_;
        forward_.start(frames);
        q_.resize(frames.stride());
        state_.assign(1, forward_.root(condition));
        if constexpr (plain) find_row_maxima(frames);
        add_children(0, 1.0, state_[0]);
        for (std::size_t cursor = 0; cursor < nodes_.size(); ++cursor) {
            const Node node = nodes_[cursor];
            state_.push_back(-1);
            if (node.psi <= threshold()) continue;
            const std::int32_t parent = state_[static_cast<std::size_t>(node.parent)];
            if (hopeless(node.psi, forward_.enter(parent, node.candidate))) continue;
            const std::int32_t state = forward_.expand_entered(parent, node.candidate, condition);
            state_.back() = state;
            if constexpr (plain)
                if (hopeless(node.psi, forward_.weighted(state, row_max_))) continue;
            add_children(static_cast<NodeIndex>(cursor) + 1, node.psi, state);
        }
        return nodes_;
    }

    /// The same as a tree with `pending` as its root and log_q the exact log(Psi(l c) / Psi(l)).
    template <PrefixCondition<Scalar> Condition = Unconditioned>
    [[nodiscard]] TokenTree tree(TokenId pending, const Frames& frames, std::int64_t nodes, Condition&& condition = {}) {
        search(frames, nodes, condition);
        TokenTree::Builder builder(pending, nodes_.size());
        for (const Node& node : nodes_)
            builder.add(node.parent, frames.tokens()[static_cast<std::size_t>(node.candidate)],
                        static_cast<float>(std::log(static_cast<double>(node.q))));
        return std::move(builder).build();
    }

    /// Prefixes expanded by the last search: how often its condition was called.
    [[nodiscard]] std::size_t expanded() const noexcept { return forward_.states(); }

private:
    /// What a prefix must beat to enter the list.
    [[nodiscard]] double threshold() const { return nodes_.size() < limit_ ? 0.0 : nodes_.back().psi; }

    /// Whether no child can enter, given an upper bound of their q (widened by more than its rounding error).
    [[nodiscard]] bool hopeless(double psi, Scalar bound) const {
        return psi * static_cast<double>(bound) * (1.0 + 1e-5) <= threshold();
    }

    void find_row_maxima(const Frames& frames) {
        row_max_.resize(frames.frames());
        for (std::size_t t = 0; t < frames.frames(); ++t)
            row_max_[t] = Eigen::Map<const Eigen::Array<Scalar, Eigen::Dynamic, 1>>(
                              frames.row(t), static_cast<Eigen::Index>(frames.stride())).maxCoeff();
    }

    void add_children(NodeIndex parent, double psi, std::int32_t state) {
        forward_.children(state, q_.data());
        Scalar least = smallest_q(psi);
        for (std::size_t c = 0; c < q_.size(); ++c) {
            if (!(q_[c] >= least)) continue;
            const Scalar q = std::min(q_[c], Scalar(1));
            if (!insert({psi * static_cast<double>(q), q, parent, static_cast<std::int32_t>(c)})) continue;
            least = smallest_q(psi);
        }
    }

    /// The smallest q that may pass the threshold (rounding to the nearest keeps every Scalar that does).
    [[nodiscard]] Scalar smallest_q(double psi) const {
        return std::max(static_cast<Scalar>(threshold() / psi), std::numeric_limits<Scalar>::min());
    }

    bool insert(const Node& node) {
        if (!(node.psi > threshold())) return false;
        const auto at = std::upper_bound(nodes_.begin() + static_cast<std::ptrdiff_t>(state_.size()) - 1, nodes_.end(),
                                         node.psi, [](double psi, const Node& other) { return psi > other.psi; });
        const auto place = at - nodes_.begin();
        if (nodes_.size() == limit_) nodes_.pop_back();
        nodes_.insert(nodes_.begin() + place, node);
        return true;
    }

    BasicPrefixForward<Scalar> forward_;
    std::size_t limit_ = 0;
    std::vector<Node> nodes_;          ///< in order; those before the cursor are final
    std::vector<std::int32_t> state_;  ///< [cursor + 1] state of each final node (0 is the root), -1 if not expanded
    std::vector<Scalar> q_, row_max_;
};

using PrefixTreeSearch = BasicPrefixTreeSearch<float>;

}  // namespace outrider
