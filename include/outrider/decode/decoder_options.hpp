// What holds for all sequences of a decoder.
#pragma once

#include <cstddef>
#include <cstdint>

#include <outrider/budget/tree_budget.hpp>

namespace outrider {

/// Tokens of prompts that a step takes where nobody waits for a round.
inline constexpr std::int64_t kRowsAlone = 192;

struct DecoderOptions {
    /// Nodes that each sequence may draft in a round; 0: plain; kAutoNodes: as many as pay, see budget::TreeBudget.
    std::int64_t nodes = kAutoNodes;
    std::size_t max_batch = 64;  ///< sequences decoded together; more wait their turn
    /// Tokens of prompts that a step takes beside the round of those that are decoded, all joiners together; fewer make
    /// smoother texts and slower prompts. Where nobody is decoded, kRowsAlone at least. The texts do not depend on it.
    std::int64_t prefill_rows = 64;
};

}  // namespace outrider
