// Shapes of trees: static ones of ranked choices in the sense of Medusa (Cai et al. 2024), where a choice (r1, ..., rd)
// names the node reached by rank r1 of the first head's (or frame's) list, then rank r2 of the second's, and so on;
// trees from one ranked list of tokens per depth; and shapes from measured accuracies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/detail/keep_best.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// A validated set of choices: prefix-closed, without doubles, sorted by (length, ranks). Immutable.
class TreeTemplate {
public:
    using Choice = std::vector<int>;

    /// Throws Error unless every prefix of a choice is a choice, each rank is in [0, max_rank) and no choice is longer
    /// than max_depth.
    TreeTemplate(std::vector<Choice> choices, int max_rank, int max_depth) : choices_(std::move(choices)) {
        std::sort(choices_.begin(), choices_.end(), shorter_first);
        for (std::size_t i = 0; i < choices_.size(); ++i) {
            const Choice& choice = choices_[i];
            require(!choice.empty() && static_cast<int>(choice.size()) <= max_depth,
                    "TreeTemplate: choice {} has depth {}, expected 1 to {}", i, choice.size(), max_depth);
            for (const int rank : choice)
                require(rank >= 0 && rank < max_rank, "TreeTemplate: rank {} is outside [0, {})", rank, max_rank);
            require(i == 0 || choices_[i - 1] != choice, "TreeTemplate: choice {} stands twice", i);
            parent_.push_back(choice.size() == 1 ? 0 : parent_of(choice));
        }
    }

    /// Choices in breadth-first order; choice i is node i + 1 of the template.
    [[nodiscard]] const std::vector<Choice>& choices() const noexcept { return choices_; }
    /// Parent of choice i as a node number; 0 is the root.
    [[nodiscard]] NodeIndex parent(std::size_t i) const { return parent_[i]; }
    [[nodiscard]] std::size_t size() const noexcept { return choices_.size(); }

private:
    static bool shorter_first(const Choice& a, const Choice& b) {
        return a.size() != b.size() ? a.size() < b.size() : a < b;
    }

    [[nodiscard]] NodeIndex parent_of(Choice choice) const {
        const Choice whole = choice;
        choice.pop_back();
        const auto it = std::lower_bound(choices_.begin(), choices_.end(), choice, shorter_first);
        require(it != choices_.end() && *it == choice,
                "TreeTemplate: choice ({}) has no parent in the set; list every prefix", detail::listed(whole, ","));
        return static_cast<NodeIndex>(it - choices_.begin()) + 1;
    }

    std::vector<Choice> choices_;
    std::vector<NodeIndex> parent_;
};

/// The 63-node shape that Medusa's release calls mc_sim_7b_63 (10 ranks, 4 levels), also used by the CTC paper.
[[nodiscard]] inline const TreeTemplate& medusa63() {
    static const TreeTemplate shape(
        {{0},          {0, 0},    {1},       {0, 1},    {2},       {0, 0, 0}, {1, 0},       {0, 2},    {3},
         {0, 3},       {4},       {0, 4},    {2, 0},    {0, 5},    {0, 0, 1}, {5},          {0, 6},    {6},
         {0, 7},       {0, 1, 0}, {1, 1},    {7},       {0, 8},    {0, 0, 2}, {3, 0},       {0, 9},    {8},
         {9},          {1, 0, 0}, {0, 2, 0}, {1, 2},    {0, 0, 3}, {4, 0},    {2, 1},       {0, 0, 4}, {0, 0, 5},
         {0, 0, 0, 0}, {0, 1, 1}, {0, 0, 6}, {0, 3, 0}, {5, 0},    {1, 3},    {0, 0, 7},    {0, 0, 8}, {0, 0, 9},
         {6, 0},       {0, 4, 0}, {1, 4},    {7, 0},    {0, 1, 2}, {2, 0, 0}, {3, 1},       {2, 2},    {8, 0},
         {0, 5, 0},    {1, 5},    {1, 0, 1}, {0, 2, 1}, {9, 0},    {0, 6, 0}, {0, 0, 0, 1}, {1, 6},    {0, 7, 0}},
        10, 4);
    return shape;
}

/// The likeliest tokens of one depth, falling. Equal in length.
struct RankedTokens {
    std::vector<TokenId> tokens;
    std::vector<float> log_q;  ///< natural logarithms, <= 0
};

/// The `nodes` paths of largest product of probabilities, exactly: a list of at least `nodes` tokens per depth (or all
/// that there are) is enough, since every better-ranked sibling of a node is in the tree before it. Best first with a
/// heap, O(nodes log nodes); between equals the shallower, better-ranked path of the earlier parent.
[[nodiscard]] inline TokenTree product_tree(TokenId pending, std::span<const RankedTokens> depths, std::int64_t nodes) {
    struct Open {
        double score;
        NodeIndex parent;
        std::size_t depth, rank;
        double above;  ///< log probability of the parent's path

        bool operator<(const Open& other) const {  // the heap's top is the largest
            if (score != other.score) return score < other.score;
            if (depth != other.depth) return depth > other.depth;
            if (parent != other.parent) return parent > other.parent;
            return rank > other.rank;
        }
    };
    TokenTree::Builder tree(pending, static_cast<std::size_t>(std::max<std::int64_t>(nodes, 0)));
    std::priority_queue<Open> open;
    const auto push = [&](NodeIndex parent, std::size_t depth, std::size_t rank, double above) {
        if (depth < depths.size() && rank < depths[depth].tokens.size() && std::isfinite(depths[depth].log_q[rank]))
            open.push({above + static_cast<double>(depths[depth].log_q[rank]), parent, depth, rank, above});
    };
    push(0, 0, 0, 0.0);
    while (!open.empty() && static_cast<std::int64_t>(tree.view().drafted()) < nodes) {
        const Open best = open.top();
        open.pop();
        const NodeIndex node =
            tree.add(best.parent, depths[best.depth].tokens[best.rank], depths[best.depth].log_q[best.rank]);
        push(best.parent, best.depth, best.rank + 1, best.above);
        push(node, best.depth + 1, 0, best.score);
    }
    return std::move(tree).build();
}

/// The nodes of a static shape: choice (r1, ..., rd) takes the token of rank r_t at depth t. Choices beyond a list's
/// end are left out; where more than `nodes` remain, the likeliest are kept, which are closed under "the parent of".
[[nodiscard]] inline TokenTree template_tree(TokenId pending, std::span<const RankedTokens> depths,
                                             const TreeTemplate& shape, std::int64_t nodes) {
    std::vector<double> path(shape.size() + 1, 0.0);  // log probability; NaN: left out
    const auto at = [&](std::size_t i) {
        const TreeTemplate::Choice& choice = shape.choices()[i];
        return std::pair{choice.size() - 1, static_cast<std::size_t>(choice.back())};
    };
    for (std::size_t i = 0; i < shape.size(); ++i) {
        const auto [depth, rank] = at(i);
        const bool there =
            depth < depths.size() && rank < depths[depth].tokens.size() && std::isfinite(depths[depth].log_q[rank]);
        path[i + 1] =
            there ? path[static_cast<std::size_t>(shape.parent(i))] + static_cast<double>(depths[depth].log_q[rank])
                  : std::nan("");
    }
    return keep_best(
        pending, path.size(), nodes, [&](std::size_t node) { return path[node]; },
        [&](std::size_t node) {
            const auto [depth, rank] = at(node - 1);
            return DraftNode{shape.parent(node - 1), depths[depth].tokens[rank], depths[depth].log_q[rank]};
        });
}

/// The likeliest choice, again and again.
[[nodiscard]] inline TreeTemplate chain_template(std::int64_t depth) {
    std::vector<TreeTemplate::Choice> choices;
    for (std::int64_t d = 1; d <= depth; ++d) choices.emplace_back(static_cast<std::size_t>(d), 0);
    return TreeTemplate(std::move(choices), 1, static_cast<int>(depth));
}

/// The shape of at most `nodes` nodes that keeps most tokens by measured accuracies (Cai et al. 2024, section 2.3.3):
/// accuracies[t][r] is the probability that depth t + 1's token of rank r is right, depths taken as independent; the
/// value of a node is the product along its path, and the nodes of largest value form the tree. Zeros are left out.
[[nodiscard]] inline TreeTemplate measured_template(std::span<const std::vector<double>> accuracies,
                                                    std::int64_t nodes) {
    using Valued = std::pair<double, TreeTemplate::Choice>;
    const auto worse = [](const Valued& a, const Valued& b) {
        if (a.first != b.first) return a.first < b.first;
        return a.second.size() != b.second.size() ? a.second.size() > b.second.size() : a.second > b.second;
    };
    std::priority_queue<Valued, std::vector<Valued>, decltype(worse)> open(worse);
    const auto expand = [&](const TreeTemplate::Choice& choice, double value) {
        if (choice.size() >= accuracies.size()) return;
        for (std::size_t r = 0; r < accuracies[choice.size()].size(); ++r) {
            TreeTemplate::Choice child = choice;
            child.push_back(static_cast<int>(r));
            if (accuracies[choice.size()][r] > 0) open.push({value * accuracies[choice.size()][r], std::move(child)});
        }
    };
    std::vector<TreeTemplate::Choice> choices;
    std::size_t ranks = 1;
    for (const std::vector<double>& depth : accuracies) ranks = std::max(ranks, depth.size());
    expand({}, 1.0);
    while (!open.empty() && static_cast<std::int64_t>(choices.size()) < nodes) {
        const Valued best = open.top();
        open.pop();
        choices.push_back(best.second);
        expand(best.second, best.first);
    }
    return TreeTemplate(std::move(choices), static_cast<int>(ranks),
                        static_cast<int>(std::max<std::size_t>(accuracies.size(), 1)));
}

}  // namespace outrider
