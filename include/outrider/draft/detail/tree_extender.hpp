// A drafter that goes on where the paths of other drafters end.
#pragma once

#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// For a DraftModel that can continue any path without a forward of its own, such as a look-up: it implements this as
/// well, and a merged drafter hands it the tree of all (SpecInfer's merged trees are of drafters that know nothing of
/// each other).
class OUTRIDER_API TreeExtender {
public:
    virtual ~TreeExtender() = default;

    /// Called in the same round as `propose`, for a sequence that was asked for then; `drafted` has its pending token
    /// as the root, and log_q as is believed of each node by now. Returns `drafted`, its nodes first and in their
    /// order, and at most `budget.nodes` further ones behind them: those of one path with `budget.chains`. log_q of the
    /// answer is what this drafter says of a node, -infinity where it says nothing. A node that it proposed this round
    /// and that is missing in `drafted` counts as withdrawn.
    [[nodiscard]] virtual TokenTree extend(SequenceId sequence, const TokenTree& drafted,
                                           const DraftBudget& budget) = 0;
};

}  // namespace outrider
