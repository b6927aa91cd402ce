// Drafted nodes with the chances that they come true, and what came of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/budget/detail/hit_rate.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/detail/subtree.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::budget {

/// A node of a round's trees.
struct Candidate {
    double chance = 0;  ///< of its path, corrected
    double stated = 0;  ///< of its path, as the drafter says
    std::uint32_t tree = 0;
    NodeIndex node = 0;
};

/// All nodes below the roots, likeliest first. Parents are at least as likely as their children and come before them,
/// so every beginning of the list is made of trees.
[[nodiscard]] inline std::vector<Candidate> likeliest_first(std::span<const SequenceTree> trees,
                                                            const HitRates& rates) {
    std::vector<Candidate> nodes;
    for (std::size_t t = 0; t < trees.size(); ++t) {
        const TokenTree& tree = trees[t].tree;
        std::vector<double> given(tree.size(), 1.0), claimed(tree.size(), 0.0), path(tree.size(), 1.0),
            raw(tree.size(), 1.0);
        for (std::size_t i = 1; i < tree.size(); ++i) {
            given[i] = rates(tree.depths()[i], std::exp(double(tree.log_q()[i])));
            claimed[static_cast<std::size_t>(tree.parents()[i])] += given[i];
        }
        for (std::size_t i = 1; i < tree.size(); ++i) {
            const auto parent = static_cast<std::size_t>(tree.parents()[i]);
            // Siblings exclude each other: together they claim no more than all.
            path[i] = path[parent] * given[i] / std::max(1.0, claimed[parent] / 0.995);
            raw[i] = raw[parent] * std::exp(double(tree.log_q()[i]));
            nodes.push_back({path[i], raw[i], static_cast<std::uint32_t>(t), static_cast<NodeIndex>(i)});
        }
    }
    std::stable_sort(nodes.begin(), nodes.end(),
                     [](const Candidate& a, const Candidate& b) { return a.chance > b.chance; });
    return nodes;
}

/// The trees with the first `count` of the candidates alone.
[[nodiscard]] inline std::vector<SequenceTree> keep(std::vector<SequenceTree> trees, std::span<const Candidate> nodes) {
    std::vector<std::vector<bool>> kept(trees.size());
    std::vector<std::size_t> counts(trees.size(), 0);
    for (std::size_t t = 0; t < trees.size(); ++t) kept[t].assign(trees[t].tree.size(), false);
    for (const Candidate& c : nodes) kept[c.tree][static_cast<std::size_t>(c.node)] = true, ++counts[c.tree];
    for (std::size_t t = 0; t < trees.size(); ++t) {
        const TokenTree& whole = trees[t].tree;
        if (counts[t] == whole.drafted()) continue;
        trees[t].tree = subtree(std::move(trees[t].tree), [&](const TokenTree&, NodeIndex node) {
            return kept[t][static_cast<std::size_t>(node)];
        });
    }
    return trees;
}

/// Drafts, whole, and how far the text has followed each: every child of a node on the text's path is an outcome,
/// whether it was verified or not. So a draft of which nothing is verified still tells what the drafter is worth.
class Outcomes {
public:
    /// The round's trees as they were drafted. Sequences that are not among them are forgotten; one that did not draft
    /// keeps its last draft.
    void drafted(std::span<const SequenceTree> trees) {
        std::vector<Followed> now;
        now.reserve(trees.size());
        for (const SequenceTree& t : trees) {
            const auto known = std::find_if(followed_.begin(), followed_.end(),
                                            [&](const Followed& f) { return f.sequence == t.sequence; });
            if (t.tree.drafted() > 0)
                now.push_back({t.sequence, t.tree, 0});
            else if (known != followed_.end())
                now.push_back(std::move(*known));
        }
        followed_ = std::move(now);
    }

    /// The next token of a sequence's text.
    void text(SequenceId sequence, TokenId token, HitRates& rates) {
        const auto it =
            std::find_if(followed_.begin(), followed_.end(), [&](const Followed& f) { return f.sequence == sequence; });
        if (it == followed_.end() || it->at == kNoNode) return;
        NodeIndex next = kNoNode;
        const TokenTree& tree = it->tree;
        for (auto i = static_cast<std::size_t>(it->at) + 1; i < tree.size(); ++i) {
            if (tree.parents()[i] != it->at) continue;
            const bool came_true = tree.tokens()[i] == token;
            rates.learn(tree.depths()[i], std::exp(double(tree.log_q()[i])), came_true);
            if (came_true) next = static_cast<NodeIndex>(i);
        }
        it->at = next;
    }

private:
    struct Followed {
        SequenceId sequence;
        TokenTree tree;
        NodeIndex at;  ///< the node that the text has reached, kNoNode once it left the tree
    };
    std::vector<Followed> followed_;
};

}  // namespace outrider::budget
