// How large the trees of a round may be.
#pragma once

#include <cstddef>
#include <cstdint>

#include <outrider/core/error.hpp>
#include <outrider/interface/round.hpp>

namespace outrider {

/// What a round cost and gained, told to the budget after it.
struct RoundReport {
    std::size_t sequences = 0;
    std::int64_t drafted = 0;   ///< nodes below the roots, all sequences together
    std::int64_t accepted = 0;  ///< of these, kept
    double draft_seconds = 0;
    double verify_seconds = 0;  ///< verify and commit
};

/// A fixed number of nodes for each sequence.
class TreeBudget {
public:
    explicit TreeBudget(std::int64_t nodes = 16) : nodes_(nodes) {
        require(nodes >= 0, "TreeBudget: {} nodes; expected 0 (plain decoding) or more", nodes);
    }

    /// What each of `sequences` may draft in the next round.
    [[nodiscard]] DraftBudget choose(std::size_t sequences) const {
        (void)sequences;
        return {nodes_};
    }

    void learn(const RoundReport&) {}

private:
    std::int64_t nodes_;
};

}  // namespace outrider
