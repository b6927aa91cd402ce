// One sequence's draft, as it travels from drafter to target and policy.
#pragma once

#include <memory>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

class DraftSamples;  // accept/rules/draft_samples.hpp

/// One sequence's draft. A drafter that samples says what it drew; its other nodes must not depend on the draws.
struct SequenceTree {
    SequenceId sequence = 0;
    TokenTree tree;
    std::shared_ptr<const DraftSamples> samples = nullptr;  ///< null: every node was chosen, none drawn
};

}  // namespace outrider
