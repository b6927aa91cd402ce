// The default policy: a draft is kept as far as it says what the target chooses itself.
#pragma once

#include <outrider/accept/policy.hpp>
#include <outrider/core/detail/export.hpp>

namespace outrider {

/// Temperature 0: at every node the target's most probable token, the verifier's argmax where nothing edits the logits,
/// else the lowest id among the largest. Above 0: the argmax of warped log p + Gumbel noise keyed by (seed, stream,
/// position of the new token in the whole text, token): a draw from the warped distribution, and the same one for every
/// drafter, tree and batch. Either way a draft is accepted exactly where it guessed the choice, and the text does not
/// depend on what was drafted. Warpers, in this order: logit hook, repetition penalty over prompt, text and drafted
/// path, temperature, top-k, top-p, min-p; equal logits rank by id. Throws Error for logits that are not finite, or
/// that forbid every token.
class OUTRIDER_API Match final : public AcceptancePolicy {
public:
    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override;
    [[nodiscard]] bool reads_draws() const override { return false; }
    [[nodiscard]] bool reads_logits(const SamplingOptions& options) const override {
        return options.temperature != 0.0 || options.edits_logits();
    }
    [[nodiscard]] bool takes_picks(const SamplingOptions& options) const override {
        return options.temperature != 0.0 && !options.edits_logits();
    }
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/match-inl.hpp>
#endif
