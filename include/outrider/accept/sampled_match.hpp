// Sampling whose result does not depend on what was drafted: the target's choice is a pure function of the seed.
#pragma once

#include <outrider/accept/policy.hpp>

namespace outrider {

/// At every node the pick is the argmax of warped log p + Gumbel noise keyed by (seed, stream, position of the new
/// token in the whole text, token): a draw from the warped distribution, and the same one for every drafter, tree and
/// batch. So a draft is accepted exactly where it guessed the draw. Temperature 0 is greedy with the same warpers.
/// Warpers, in this order: logit hook, repetition penalty over prompt, text and drafted path, temperature, top-k,
/// top-p, min-p; equal logits rank by id. Throws Error for logits that are not finite, or that forbid every token.
class SampledMatch final : public AcceptancePolicy {
public:
    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override;
};

}  // namespace outrider
