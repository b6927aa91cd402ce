// What a round may hold where the target has limits (VerifierLimits).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <outrider/budget/detail/tree_budget.hpp>
#include <outrider/target/verifier.hpp>
#include <outrider/tree/detail/subtree.hpp>

namespace outrider {

/// Every sequence of a round gets the same share of rows and leaves; its root always fits.
class TreeLimits {
public:
    explicit TreeLimits(VerifierLimits limits = {}) : limits_(limits) {}

    /// Sequences that may be decoded together where the host allows `most`.
    [[nodiscard]] std::size_t sequences(std::size_t most) const {
        for (const std::int64_t bound : {limits_.sequences, limits_.rows, limits_.leaves})
            if (bound > 0) most = std::min(most, static_cast<std::size_t>(bound));
        return most;
    }

    /// What a drafter is asked for where so many sequences share a round: more would be found in vain.
    [[nodiscard]] budget::DraftPlan within(budget::DraftPlan plan, std::size_t sequences) const {
        const auto many = static_cast<std::int64_t>(sequences);
        DraftBudget& budget = plan.budget;
        budget.nodes = std::min(budget.nodes, share(limits_.rows, many) - 1);
        budget.chains = limits_.chains_only || share(limits_.leaves, many) == 1;
        if (std::ssize(budget.tree_prices) > budget.nodes + 1)
            budget.tree_prices = budget.tree_prices.first(static_cast<std::size_t>(budget.nodes) + 1);
        if (budget.nodes == 0) plan.drafting.clear(), plan.late.clear();
        return plan;
    }

    /// The trees with as many of their first nodes as fit. One that was drawn and does not fit is left out: which of
    /// its nodes stay must not depend on the draws.
    [[nodiscard]] std::vector<SequenceTree> fit(std::vector<SequenceTree> trees) const {
        const auto sequences = static_cast<std::int64_t>(trees.size());
        const std::int64_t rows = share(limits_.rows, sequences);
        const std::int64_t leaves = limits_.chains_only ? 1 : share(limits_.leaves, sequences);
        if (rows == kAny && leaves == kAny) return trees;
        for (SequenceTree& one : trees) {
            TokenTree fitting = cut(one.tree, rows, leaves);
            if (fitting.size() == one.tree.size()) continue;
            one.tree = one.samples ? TokenTree::root_only(one.tree.token(0)) : std::move(fitting);
            one.samples = nullptr;
        }
        return trees;
    }

private:
    static constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();

    [[nodiscard]] static std::int64_t share(std::int64_t bound, std::int64_t sequences) {
        return bound > 0 ? std::max<std::int64_t>(bound / sequences, 1) : kAny;
    }

    [[nodiscard]] static TokenTree cut(const TokenTree& tree, std::int64_t rows, std::int64_t leaves) {
        std::vector<bool> has_child(tree.size());
        std::int64_t kept = 1, ends = 1;  // the root alone is a leaf
        return subtree(tree, [&](const TokenTree& whole, NodeIndex node) {
            const auto parent = static_cast<std::size_t>(whole.parent(node));
            if (kept == rows || (has_child[parent] && ends == leaves)) return false;
            ++kept, ends += has_child[parent];  // a first child takes its parent's place among the leaves
            has_child[parent] = true;
            return true;
        });
    }

    VerifierLimits limits_;
};

}  // namespace outrider
