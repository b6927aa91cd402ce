// Lossless policies for drafters that sample: the text has the target's law, whatever was drawn, and depends on it.
#pragma once

#include <outrider/accept/policy.hpp>

namespace outrider {

/// See docs/acceptance.md; the mathematics is in accept/rules/node_rules.hpp and path_rules.hpp.
enum class DrawRule {
    rejection,   ///< rule V2: one chain, token by token
    multi_step,  ///< recursive rejection of several draws, independent or without replacement
    k_seq,       ///< SpecTr's k-SEQ with the best rho: independent draws
    unified,     ///< recursive rejection of the draws, sample and match for all other nodes; draws are optional
    block,       ///< block verification: one chain
    traversal,   ///< traversal verification: any draws
};

/// A lossless rule under the request's warpers (those of Match, in its order). Chance is keyed by (seed, stream,
/// position in the text), apart from the picks of other policies and from drafting. At temperature 0 the text is the
/// target's greedy text. Unlike Match's, a sampled text depends on what was drafted; its law does not.
/// Throws Error for a tree without draws (unified takes them all), for draws that the rule is not made for, and for
/// logits that are not finite or forbid every token.
template <DrawRule Rule>
class DrawAccept final : public AcceptancePolicy {
public:
    static constexpr bool kNeedsDraws = Rule != DrawRule::unified;  ///< see Fits

    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                    const SequenceContext& context) const override;
    void check_draws(DraftDraws draws) const override;
};

using RejectionAccept = DrawAccept<DrawRule::rejection>;
using MultiStepAccept = DrawAccept<DrawRule::multi_step>;
using KSeqAccept = DrawAccept<DrawRule::k_seq>;
using UnifiedAccept = DrawAccept<DrawRule::unified>;
using BlockAccept = DrawAccept<DrawRule::block>;
using TraversalAccept = DrawAccept<DrawRule::traversal>;

#ifdef OUTRIDER_COMPILED
extern template class DrawAccept<DrawRule::rejection>;
extern template class DrawAccept<DrawRule::multi_step>;
extern template class DrawAccept<DrawRule::k_seq>;
extern template class DrawAccept<DrawRule::unified>;
extern template class DrawAccept<DrawRule::block>;
extern template class DrawAccept<DrawRule::traversal>;
#endif

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/accept/detail/draw-inl.hpp>
#endif
