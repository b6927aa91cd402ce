// Lossy policies: criteria that accept more than the target would have said. The text is not the target's.
#pragma once

#include <cstddef>
#include <limits>
#include <utility>

#include <outrider/accept/policy.hpp>
#include <outrider/accept/rules/lossy_rules.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// The longest acceptable path of any tree, then the target's most probable token: deterministic, seeds play no part.
/// p is the request's warped law. Temperature 0 leaves one possible token, so that typical acceptance is greedy match
/// there, as in Medusa; the other criteria rank tokens, and take temperature 1 for it.
/// `unasked`: nodes down to this depth are accepted whatever they are (a minimum block of unasked + 1 tokens).
/// Throws Error for logits that are not finite or forbid every token.
template <LossyCriterion Criterion>
class LossyAccept final : public AcceptancePolicy {
public:
    explicit LossyAccept(Criterion criterion = {}, NodeIndex unasked = 0)
        : criterion_(std::move(criterion)), unasked_(unasked) {}

    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override;
    [[nodiscard]] bool reads_draws() const override { return false; }

private:
    Criterion criterion_;
    NodeIndex unasked_;
};

using LossyTypical = LossyAccept<TypicalCriterion>;    ///< Medusa
using LossyTopBeta = LossyAccept<TopBetaCriterion>;    ///< SpecDec
using LossyDistance = LossyAccept<DistanceCriterion>;  ///< blockwise decoding

/// Blockwise decoding's top-k criterion: top-beta without a bound on the distance.
[[nodiscard]] inline LossyTopBeta lossy_top_k(std::size_t k, NodeIndex unasked = 0) {
    return LossyTopBeta({.beta = k, .tau = std::numeric_limits<double>::infinity()}, unasked);
}

#ifdef OUTRIDER_COMPILED
extern template class LossyAccept<TypicalCriterion>;
extern template class LossyAccept<TopBetaCriterion>;
extern template class LossyAccept<DistanceCriterion>;
#endif

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/lossy-inl.hpp>
#endif
