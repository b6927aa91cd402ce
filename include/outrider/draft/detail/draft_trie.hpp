// The trees of several drafters joined by token path (the merged trees of SpecInfer, Miao et al. 2024).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include <outrider/budget/detail/hit_rate.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/target/round.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Of one sequence in one round. A node's probability given its parent starts as 1 - prod(1 - q) over the drafters that
/// propose it, and is corrected by how often such nodes came true.
class OUTRIDER_API DraftTrie {
public:
    using Drafters = std::uint16_t;  ///< a set of them: bit d is drafter d

    /// How often nodes came true, by who has a say behind a node and who agrees on it: a token that two propose is
    /// another kind of guess than a token that one proposes while the other differs, or knows nothing.
    using Rates = std::map<std::pair<Drafters, Drafters>, budget::HitRates>;

    /// The root alone.
    explicit DraftTrie(TokenId pending) : nodes_{Node{pending}} {}

    /// Those that have proposed, whether with nodes or without.
    [[nodiscard]] Drafters asked() const noexcept { return asked_; }

    /// Joins what these drafters propose. A node that they proposed before, or give no chance, counts once.
    void join(const TokenTree& tree, Drafters who);

    /// Calibrates every node, scales siblings that claim more than all, and multiplies along the paths.
    void weigh(const Rates& rates);

    /// Walks along what the target chose; every child on the way is an outcome, kept in the tree or not.
    void learn(const SequenceFeedback& feedback, Rates& rates) const;

    /// All nodes in order, with their chances. The trie has to be weighed, as for all below.
    [[nodiscard]] TokenTree whole() const;

    /// The nodes of largest path probability, at most so many; with `chains`, the path along which most tokens are
    /// expected.
    [[nodiscard]] TokenTree best(const DraftBudget& budget) const;

    /// The nodes of the tree, or path, that is expected to bring most tokens beyond its price.
    [[nodiscard]] std::vector<NodeIndex> choice(const DraftBudget& budget) const;

    /// Tokens that these nodes are expected to bring beyond their price. Nodes keep their places when others join.
    [[nodiscard]] double worth(std::span<const NodeIndex> chosen, const DraftBudget& budget) const;

private:
    struct Node {
        TokenId token = kNoToken;
        NodeIndex parent = kNoNode;
        std::int32_t depth = 0;
        Drafters by = 0;    ///< those that propose it
        double miss = 1.0;  ///< prod(1 - q) of these
        double path = 0.0;  ///< log of the calibrated path probability
        double given_parent = 1.0;
    };

    [[nodiscard]] NodeIndex child(NodeIndex parent, TokenId token);
    [[nodiscard]] std::vector<Drafters> voices() const;
    /// Of the nodes, those that may stay; empty: all.
    [[nodiscard]] std::vector<bool> eligible(const DraftBudget& budget) const;

    Drafters asked_ = 0;
    std::vector<Node> nodes_;  ///< node 0 is the root; parents come first
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/detail/draft_trie-inl.hpp>
#endif
