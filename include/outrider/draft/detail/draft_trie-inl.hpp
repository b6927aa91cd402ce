// Bodies of draft_trie.hpp.
#pragma once

#include <outrider/draft/detail/draft_trie.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <outrider/tree/detail/keep_best.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

/// The child with this token; made where there is none.
OUTRIDER_INLINE NodeIndex DraftTrie::child(NodeIndex parent, TokenId token) {
    auto n = static_cast<std::size_t>(parent) + 1;
    while (n < nodes_.size() && (nodes_[n].parent != parent || nodes_[n].token != token)) ++n;
    if (n == nodes_.size())
        nodes_.push_back(
            {.token = token, .parent = parent, .depth = nodes_[static_cast<std::size_t>(parent)].depth + 1});
    return static_cast<NodeIndex>(n);
}

OUTRIDER_INLINE void DraftTrie::join(const TokenTree& tree, Drafters who) {
    asked_ = static_cast<Drafters>(asked_ | who);
    std::vector<NodeIndex> place(tree.size(), 0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        place[i] = child(place[static_cast<std::size_t>(tree.parents()[i])], tree.tokens()[i]);
        Node& node = nodes_[static_cast<std::size_t>(place[i])];
        if ((node.by & who) != 0 || std::isinf(tree.log_q()[i])) continue;  // proposed before, or not at all
        node.by = static_cast<Drafters>(node.by | who);
        node.miss *= 1.0 - std::clamp(std::exp(double(tree.log_q()[i])), 0.0, 0.9999);
    }
}

/// Of every node, the drafters that propose a child of it.
OUTRIDER_INLINE std::vector<DraftTrie::Drafters> DraftTrie::voices() const {
    std::vector<Drafters> voices(nodes_.size(), 0);
    for (std::size_t n = 1; n < nodes_.size(); ++n) {
        Drafters& parents = voices[static_cast<std::size_t>(nodes_[n].parent)];
        parents = static_cast<Drafters>(parents | nodes_[n].by);
    }
    return voices;
}

OUTRIDER_INLINE void DraftTrie::weigh(const Rates& rates) {
    static const budget::HitRates unknown;
    std::vector<double> claimed(nodes_.size(), 0.0);  // sum over the children
    const std::vector<Drafters> voices = this->voices();
    for (std::size_t n = 1; n < nodes_.size(); ++n) {
        const auto parent = static_cast<std::size_t>(nodes_[n].parent);
        const auto it = rates.find({voices[parent], nodes_[n].by});
        nodes_[n].given_parent = (it == rates.end() ? unknown : it->second)(nodes_[n].depth, 1.0 - nodes_[n].miss);
        claimed[parent] += nodes_[n].given_parent;
    }
    for (std::size_t n = 1; n < nodes_.size(); ++n) {
        const auto parent = static_cast<std::size_t>(nodes_[n].parent);
        if (claimed[parent] > 0.995) nodes_[n].given_parent *= 0.995 / claimed[parent];
        nodes_[n].path = nodes_[parent].path + std::log(nodes_[n].given_parent);
    }
}

OUTRIDER_INLINE void DraftTrie::learn(const SequenceFeedback& f, Rates& rates) const {
    if (asked_ == 0 || f.tokens.empty() || nodes_.front().token != f.tokens.front()) return;
    const std::vector<Drafters> voices = this->voices();
    NodeIndex at = 0;
    for (std::size_t i = 1; i <= f.tokens.size() && at != kNoNode; ++i) {
        const TokenId actual = i < f.tokens.size() ? f.tokens[i] : f.pending;
        NodeIndex next = kNoNode;
        for (std::size_t n = static_cast<std::size_t>(at) + 1; n < nodes_.size(); ++n) {
            const Node& node = nodes_[n];
            if (node.parent != at) continue;
            const bool came_true = node.token == actual;
            rates[{voices[static_cast<std::size_t>(at)], node.by}].learn(node.depth, 1.0 - node.miss, came_true);
            if (came_true) next = static_cast<NodeIndex>(n);
        }
        at = next;
    }
}

OUTRIDER_INLINE TokenTree DraftTrie::whole() const {
    TokenTree::Builder tree(nodes_.front().token, nodes_.size());
    for (std::size_t n = 1; n < nodes_.size(); ++n)
        tree.add(nodes_[n].parent, nodes_[n].token, static_cast<float>(std::log(nodes_[n].given_parent)));
    return std::move(tree).build();
}

/// Empty: all of them; else those of the best path.
OUTRIDER_INLINE std::vector<bool> DraftTrie::eligible(const DraftBudget& budget) const {
    if (!budget.chains) return {};
    std::vector<double> expected(nodes_.size(), 0.0);  // tokens below each node, along its best path
    std::vector<std::size_t> next(nodes_.size(), 0);
    for (std::size_t n = nodes_.size() - 1; n > 0; --n) {
        const auto parent = static_cast<std::size_t>(nodes_[n].parent);
        const double brings = std::exp(nodes_[n].path) + expected[n];
        if (nodes_[n].depth > budget.nodes || brings < expected[parent]) continue;
        expected[parent] = brings, next[parent] = n;
    }
    std::vector<bool> on_path(nodes_.size(), false);
    for (std::size_t n = next[0]; n != 0; n = next[n]) on_path[n] = true;
    return on_path;
}

OUTRIDER_INLINE TokenTree DraftTrie::best(const DraftBudget& budget) const {
    const std::vector<bool> stays = eligible(budget);
    return keep_best(
        nodes_.front().token, nodes_.size(), budget.nodes,
        [&](std::size_t n) {
            return stays.empty() || stays[n] ? nodes_[n].path : -std::numeric_limits<double>::infinity();
        },
        [&](std::size_t n) {
            return DraftNode{nodes_[n].parent, nodes_[n].token, static_cast<float>(std::log(nodes_[n].given_parent))};
        });
}

OUTRIDER_INLINE std::vector<NodeIndex> DraftTrie::choice(const DraftBudget& budget) const {
    std::vector<NodeIndex> nodes;
    const std::vector<bool> stays = eligible(budget);
    for (std::size_t n = 1; n < nodes_.size(); ++n)
        if (stays.empty() || stays[n]) nodes.push_back(static_cast<NodeIndex>(n));
    const auto path = [&](NodeIndex n) { return nodes_[static_cast<std::size_t>(n)].path; };
    std::stable_sort(nodes.begin(), nodes.end(), [&](NodeIndex a, NodeIndex b) { return path(a) > path(b); });
    double best = 0, sum = 0;
    std::size_t size = 0;
    for (std::size_t n = 1; n <= nodes.size() && n < budget.tree_prices.size(); ++n) {
        sum += std::exp(path(nodes[n - 1]));
        if (sum - budget.tree_prices[n] > best) best = sum - budget.tree_prices[n], size = n;
    }
    nodes.resize(size);
    return nodes;
}

OUTRIDER_INLINE double DraftTrie::worth(std::span<const NodeIndex> chosen, const DraftBudget& budget) const {
    if (chosen.empty()) return 0;
    double sum = 0;
    for (const NodeIndex n : chosen) sum += std::exp(nodes_[static_cast<std::size_t>(n)].path);
    return sum - budget.tree_prices[chosen.size()];
}

}  // namespace outrider
