// How large the trees of a round may be: a fixed number of nodes, or as many as pay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/option_ranges.hpp>
#include <outrider/decode/auto_budget.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// As a number of nodes: see AutoBudget.
inline constexpr std::int64_t kAutoNodes = -1;

/// `plan` before the drafter, `trim` after it, `saw` for each verified tree, `learn` at the end of the round.
class TreeBudget {
public:
    /// `nodes` for each sequence, or kAutoNodes: then up to `most`.
    explicit TreeBudget(std::int64_t nodes = kAutoNodes, std::int64_t most = 32) : nodes_(nodes), most_(most) {
        if (nodes != kAutoNodes) require_in(ranges::kNodes, nodes, "TreeBudget", "nodes (kAutoNodes apart)");
        if (nodes == kAutoNodes) auto_.emplace(most);
    }

    [[nodiscard]] bool automatic() const noexcept { return auto_.has_value(); }

    /// Starts an automatic budget afresh from what passes cost here.
    void measured(std::span<const PassTime> times) {
        if (auto_) auto_.emplace(most_, times);
    }

    /// Which sequences draft in the next round. `owed`: for each, the tokens that the drafter has not seen yet.
    [[nodiscard]] DraftPlan plan(std::span<const std::int64_t> owed) {
        if (auto_) return auto_->plan(owed);
        DraftPlan all{std::vector<std::size_t>(owed.size()), {nodes_}};
        std::iota(all.drafting.begin(), all.drafting.end(), std::size_t{0});
        return all;
    }

    [[nodiscard]] std::vector<SequenceTree> trim(std::vector<SequenceTree> trees) {
        return auto_ ? auto_->trim(std::move(trees)) : trees;
    }

    void saw(const TokenTree& tree, std::size_t accepted) {
        if (auto_) auto_->saw(tree, accepted);
    }

    void learn(const RoundReport& report) {
        if (auto_) auto_->learn(report);
    }

private:
    std::int64_t nodes_, most_;
    std::optional<AutoBudget> auto_;
};

}  // namespace outrider
