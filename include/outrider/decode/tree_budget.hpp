// How large the trees of a round may be: a fixed number of nodes, or as many as pay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/decode/auto_budget.hpp>
#include <outrider/interface/round.hpp>

namespace outrider {

/// As a number of nodes: see AutoBudget.
inline constexpr std::int64_t kAutoNodes = -1;

/// `choose` before the drafter, `trim` after it, `saw` for each verified tree, `learn` at the end of the round.
class TreeBudget {
public:
    /// `nodes` for each sequence, or kAutoNodes: then up to `most`.
    explicit TreeBudget(std::int64_t nodes = 16, std::int64_t most = 32) : nodes_(nodes) {
        require(nodes >= 0 || nodes == kAutoNodes,
                "TreeBudget: {} nodes; expected 0 (plain decoding) or more, or kAutoNodes", nodes);
        if (nodes == kAutoNodes) auto_.emplace(most);
    }

    /// What each of `sequences` may draft in the next round.
    [[nodiscard]] DraftBudget choose(std::size_t sequences) {
        return auto_ ? auto_->choose(sequences) : DraftBudget{nodes_};
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
    std::int64_t nodes_;
    std::optional<AutoBudget> auto_;
};

}  // namespace outrider
