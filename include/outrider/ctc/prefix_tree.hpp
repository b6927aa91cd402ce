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

#include <outrider/core/error.hpp>
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
///
/// Calibration: `exponents` [d - 1] > 0 corrects how far a drafter may be trusted at depth d (the last one holds for
/// all deeper nodes). Prefixes are then ranked by the product of q^exponent along their path instead of Psi, the
/// product of q; psi and log_q stay the exact ones.
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

    /// The `nodes` most probable prefixes (fewer if fewer have a probability above zero) in descending order of psi
    /// (of the calibrated score, if there are exponents), parents before children. Valid until the next call.
    template <PrefixCondition<Scalar> Condition = Unconditioned>
    std::span<const Node> search(const Frames& frames, std::int64_t nodes, Condition&& condition = {},
                                 std::span<const double> exponents = {}) {
        constexpr bool plain = std::same_as<std::remove_cvref_t<Condition>, Unconditioned>;
        for (const double e : exponents)
            require(e > 0 && std::isfinite(e), "PrefixTreeSearch: exponent {}, expected a positive number", e);
        limit_ = nodes > 0 ? static_cast<std::size_t>(nodes) : 0;
        nodes_.clear();
        if (limit_ == 0 || frames.frames() == 0 || frames.candidates() == 0) return nodes_;
        forward_.start(frames);
        q_.resize(frames.stride());
        final_.assign(1, {forward_.root(condition), 0});
        if constexpr (plain) find_row_maxima(frames);
        set_depth(exponents, 1);
        add_children(0, 1.0, 0);
        for (std::size_t cursor = 0; cursor < nodes_.size(); ++cursor) {
            const Node node = nodes_[cursor];
            const Final parent = final_[static_cast<std::size_t>(node.parent)];
            final_.push_back({-1, parent.depth + 1});
            if (node.psi <= threshold()) continue;
            set_depth(exponents, parent.depth + 2);
            if (hopeless(node.psi, forward_.enter(parent.state, node.candidate))) continue;
            const std::int32_t state = forward_.expand_entered(parent.state, node.candidate, condition);
            final_.back().state = state;
            if constexpr (plain)
                if (hopeless(node.psi, forward_.weighted(state, row_max_))) continue;
            add_children(static_cast<NodeIndex>(cursor) + 1, node.psi, state);
        }
        if (!exponents.empty()) restore_psi();
        return nodes_;
    }

    /// The same as a tree with `pending` as its root and log_q the exact log(Psi(l c) / Psi(l)).
    template <PrefixCondition<Scalar> Condition = Unconditioned>
    [[nodiscard]] TokenTree tree(TokenId pending, const Frames& frames, std::int64_t nodes, Condition&& condition = {},
                                 std::span<const double> exponents = {}) {
        search(frames, nodes, condition, exponents);
        TokenTree::Builder builder(pending, nodes_.size());
        for (const Node& node : nodes_)
            builder.add(node.parent, frames.tokens()[static_cast<std::size_t>(node.candidate)],
                        static_cast<float>(std::log(static_cast<double>(node.q))));
        return std::move(builder).build();
    }

    /// Prefixes expanded by the last search: how often its condition was called.
    [[nodiscard]] std::size_t expanded() const noexcept { return forward_.states(); }

private:
    /// A node that the cursor has passed (or the root).
    struct Final {
        std::int32_t state;  ///< of forward_, -1 if not expanded
        std::int32_t depth;
    };

    // During a search Node::psi holds the score. Without exponents that is Psi.

    /// What a prefix must beat to enter the list.
    [[nodiscard]] double threshold() const { return nodes_.size() < limit_ ? 0.0 : nodes_.back().psi; }

    void set_depth(std::span<const double> exponents, std::int32_t depth) {
        if (!exponents.empty())
            exponent_ = exponents[std::min(exponents.size(), static_cast<std::size_t>(depth)) - 1];
        else
            exponent_ = 1.0;
    }

    /// What a conditional probability contributes to the score.
    [[nodiscard]] double worth(Scalar q) const {
        return exponent_ == 1.0 ? static_cast<double>(q) : std::pow(static_cast<double>(q), exponent_);
    }

    /// Whether no child can enter, given an upper bound of their q (widened by more than its rounding error); negative:
    /// there is none.
    [[nodiscard]] bool hopeless(double score, Scalar bound) const {
        return bound <= 0 || score * worth(bound * Scalar(1.0 + 1e-5)) <= threshold();
    }

    void find_row_maxima(const Frames& frames) {
        row_max_.resize(frames.frames());
        for (std::size_t t = 0; t < frames.frames(); ++t)
            row_max_[t] = Eigen::Map<const Eigen::Array<Scalar, Eigen::Dynamic, 1>>(
                              frames.row(t), static_cast<Eigen::Index>(frames.stride()))
                              .maxCoeff();
    }

    void add_children(NodeIndex parent, double score, std::int32_t state) {
        forward_.children(state, q_.data());
        Scalar least = smallest_q(score);
        for (std::size_t c = 0; c < q_.size(); ++c) {
            if (!(q_[c] >= least)) continue;
            const Scalar q = std::min(q_[c], Scalar(1));
            if (!insert({score * worth(q), q, parent, static_cast<std::int32_t>(c)})) continue;
            least = smallest_q(score);
        }
    }

    /// The smallest q that may pass the threshold. Rounding to the nearest keeps every Scalar that does; powers are
    /// given some room.
    [[nodiscard]] Scalar smallest_q(double score) const {
        const double ratio = threshold() / score;
        const double q = exponent_ == 1.0 ? ratio : std::pow(ratio, 1.0 / exponent_) * (1.0 - 1e-6);
        return std::max(static_cast<Scalar>(q), std::numeric_limits<Scalar>::min());
    }

    void restore_psi() {
        for (Node& node : nodes_)
            node.psi = (node.parent == 0 ? 1.0 : nodes_[static_cast<std::size_t>(node.parent) - 1].psi) *
                       static_cast<double>(node.q);
    }

    bool insert(const Node& node) {
        if (!(node.psi > threshold())) return false;
        const auto at = std::upper_bound(nodes_.begin() + static_cast<std::ptrdiff_t>(final_.size()) - 1, nodes_.end(),
                                         node.psi, [](double psi, const Node& other) { return psi > other.psi; });
        const auto place = at - nodes_.begin();
        if (nodes_.size() == limit_) nodes_.pop_back();
        nodes_.insert(nodes_.begin() + place, node);
        return true;
    }

    BasicPrefixForward<Scalar> forward_;
    std::size_t limit_ = 0;
    double exponent_ = 1.0;     ///< of the depth whose nodes are being added
    std::vector<Node> nodes_;   ///< in order; those before the cursor are final
    std::vector<Final> final_;  ///< the root and the nodes before the cursor
    std::vector<Scalar> q_, row_max_;
};

using PrefixTreeSearch = BasicPrefixTreeSearch<float>;

}  // namespace outrider
