// What callers of drafters check of the trees that come back: cheap, once a round, in every build.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/target/round.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// The `index`th tree of a drafter: of this sequence, from its pending token, at most `nodes` below it. Throws Error.
inline void check_draft(std::string_view who, std::size_t index, const SequenceTree& drafted, SequenceId sequence,
                        TokenId pending, std::int64_t nodes) {
    require(drafted.sequence == sequence, "{}: tree {} belongs to sequence {}, expected sequence {}", who, index,
            drafted.sequence, sequence);
    require(drafted.tree.token(0) == pending, "{}: tree {} has root {}, expected the pending token {}", who, index,
            drafted.tree.token(0), pending);
    require(static_cast<std::int64_t>(drafted.tree.drafted()) <= nodes,
            "{}: tree {} has {} nodes below the root, the budget is {}", who, index, drafted.tree.drafted(), nodes);
}

inline void check_draft_count(std::string_view who, std::size_t trees, std::size_t sequences) {
    require(trees == sequences, "{}: {} trees for {} sequences; return one for each, in order", who, trees, sequences);
}

/// One sound tree for each feedback, in order. Throws Error.
inline void check_drafts(std::string_view who, std::span<const SequenceTree> trees,
                         std::span<const SequenceFeedback> feedback, std::int64_t nodes) {
    check_draft_count(who, trees.size(), feedback.size());
    for (std::size_t i = 0; i < trees.size(); ++i)
        check_draft(who, i, trees[i], feedback[i].sequence, feedback[i].pending, nodes);
}

}  // namespace outrider
