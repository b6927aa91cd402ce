// The published way from frames to a tree (Wen, Gui, Feng 2024): ranked choices per frame in a fixed shape, collapsed,
// duplicates merged. Kept for comparison with the best-first tree, which is never worse by the drafter's own belief.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/tree/detail/keep_best.hpp>
#include <outrider/tree/token_tree.hpp>
#include <outrider/tree/tree_shape.hpp>

namespace outrider {

/// Choice (r1, ..., rd) of a template takes the symbol of rank r_t in frame t, where tokens and blank are ranked
/// together by pi_t (ties: blank first, then smaller index; symbols of probability zero have no rank). What collapses
/// to the same tokens is one node, so that a template of 63 choices gives 63 nodes or fewer. log_q is exact all the
/// same. Reusable scratch; keep one per thread.
template <typename Scalar>
class BasicStaticPrefixTree {
public:
    using Frames = BasicCtcFrames<Scalar>;

    /// At most `nodes` nodes; where the template gives more, the most probable are kept (they are closed under "without
    /// the last token"). Choices longer than T are left out. A condition changes probabilities, not the shape.
    template <PrefixCondition<Scalar> Condition = Unconditioned>
    [[nodiscard]] TokenTree tree(TokenId pending, const Frames& frames, const TreeTemplate& shape, std::int64_t nodes,
                                 Condition&& condition = {}) {
        nodes_.assign(1, {kNoNode, kBlank, -1, 1.0, Scalar(1)});
        if (frames.frames() > 0) {
            forward_.start(frames);
            nodes_[0].state = forward_.root(condition);
            rank(frames, shape);
            for (const TreeTemplate::Choice& choice : shape.choices())
                if (align(choice)) add_path(condition);
        }
        return build(pending, frames, nodes);
    }

private:
    struct Node {
        NodeIndex parent;
        std::int32_t candidate;
        std::int32_t state;  ///< -1 until a child asks for it
        double psi;
        Scalar q;
    };

    /// Fills ranked_[t] with the symbols of frame t in order, as many as the template asks for.
    void rank(const Frames& frames, const TreeTemplate& shape) {
        int ranks = 0;
        std::size_t depth = 0;
        for (const TreeTemplate::Choice& choice : shape.choices()) {
            ranks = std::max(ranks, *std::max_element(choice.begin(), choice.end()) + 1);
            depth = std::max(depth, choice.size());
        }
        ranked_.resize(std::min(depth, frames.frames()));
        for (std::size_t t = 0; t < ranked_.size(); ++t) {
            const auto pi = [&](std::int32_t symbol) {
                return symbol == kBlank ? frames.blank(t) : frames.pi(t, static_cast<std::size_t>(symbol));
            };
            std::vector<std::int32_t>& symbols = ranked_[t];
            symbols.resize(frames.candidates() + 1);
            std::iota(symbols.begin(), symbols.end(), kBlank);
            const auto kept = std::min(symbols.size(), static_cast<std::size_t>(ranks));
            std::partial_sort(symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(kept), symbols.end(),
                              [&](std::int32_t a, std::int32_t b) { return pi(a) != pi(b) ? pi(a) > pi(b) : a < b; });
            symbols.resize(kept);
            while (!symbols.empty() && !(pi(symbols.back()) > 0)) symbols.pop_back();
        }
    }

    /// Writes the choice's alignment and what it collapses to; false if a frame or a rank does not exist.
    bool align(const TreeTemplate::Choice& choice) {
        if (choice.size() > ranked_.size()) return false;
        alignment_.clear();
        for (std::size_t t = 0; t < choice.size(); ++t) {
            const auto rank = static_cast<std::size_t>(choice[t]);
            if (rank >= ranked_[t].size()) return false;
            alignment_.push_back(ranked_[t][rank]);
        }
        collapse(alignment_, path_);
        return true;
    }

    template <typename Condition>
    void add_path(Condition& condition) {
        NodeIndex at = 0;
        for (const std::int32_t candidate : path_) {
            NodeIndex child = find(at, candidate);
            if (child == kNoNode) {
                expand(at, condition);
                const Node& parent = nodes_[static_cast<std::size_t>(at)];
                const Scalar q = std::min(forward_.child(parent.state, candidate), Scalar(1));
                if (!(q >= std::numeric_limits<Scalar>::min())) return;
                nodes_.push_back({at, candidate, -1, parent.psi * static_cast<double>(q), q});
                child = static_cast<NodeIndex>(nodes_.size()) - 1;
            }
            at = child;
        }
    }

    template <typename Condition>
    void expand(NodeIndex node, Condition& condition) {
        Node& it = nodes_[static_cast<std::size_t>(node)];
        if (it.state >= 0) return;
        it.state = forward_.expand(nodes_[static_cast<std::size_t>(it.parent)].state, it.candidate, condition);
    }

    [[nodiscard]] NodeIndex find(NodeIndex parent, std::int32_t candidate) const {
        for (auto i = static_cast<std::size_t>(parent) + 1; i < nodes_.size(); ++i)
            if (nodes_[i].parent == parent && nodes_[i].candidate == candidate) return static_cast<NodeIndex>(i);
        return kNoNode;
    }

    [[nodiscard]] TokenTree build(TokenId pending, const Frames& frames, std::int64_t nodes) {
        return keep_best(
            pending, nodes_.size(), nodes, [&](std::size_t i) { return nodes_[i].psi; },
            [&](std::size_t i) {
                const Node& node = nodes_[i];
                return DraftNode{node.parent, frames.tokens()[static_cast<std::size_t>(node.candidate)],
                                 static_cast<float>(std::log(static_cast<double>(node.q)))};
            });
    }

    BasicPrefixForward<Scalar> forward_;
    std::vector<std::vector<std::int32_t>> ranked_;
    std::vector<TokenId> alignment_, path_;  ///< candidate indices and kBlank
    std::vector<Node> nodes_;                ///< in order of discovery, parents first
};

using StaticPrefixTree = BasicStaticPrefixTree<float>;

}  // namespace outrider
