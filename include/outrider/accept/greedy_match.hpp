// Greedy acceptance: at every node the target's most probable token.
#pragma once

#include <outrider/accept/policy.hpp>

namespace outrider {

/// The text is token for token the target's own greedy text. Uses the verifier's argmax where there is one; otherwise
/// the lowest id among the largest logits. Throws Error for logits that are not a number, and for sampling options that
/// change the logits or the choice (SampledMatch obeys those).
class GreedyMatch final : public AcceptancePolicy {
public:
    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override;
};

}  // namespace outrider
