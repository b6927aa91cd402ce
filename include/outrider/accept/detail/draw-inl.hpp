// Bodies of draw.hpp.
#pragma once

#include <outrider/accept/draw.hpp>

#include <cstdint>
#include <string_view>

#include <outrider/accept/rules/dice.hpp>
#include <outrider/accept/rules/node_rules.hpp>
#include <outrider/accept/rules/path_rules.hpp>
#include <outrider/core/error.hpp>

#include <outrider/accept/detail/target_law.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

constexpr std::string_view name_of(DrawRule rule) {
    switch (rule) {
        case DrawRule::rejection: return "RejectionAccept";
        case DrawRule::multi_step: return "MultiStepAccept";
        case DrawRule::k_seq: return "KSeqAccept";
        case DrawRule::unified: return "UnifiedAccept";
        case DrawRule::block: return "BlockAccept";
        case DrawRule::traversal: return "TraversalAccept";
    }
    return "";
}

/// Throws Error unless the rule is made for such drafts.
OUTRIDER_INLINE void check_rule(DrawRule rule, DraftDraws draws) {
    const std::string_view name = name_of(rule);
    require(rule == DrawRule::unified || draws != DraftDraws::none,
            "{}: the draft says nothing of draws, so its law q is unknown; use a drafter that samples "
            "(SequenceTree::samples; for CTC the tree `sampled`), or Match or UnifiedAccept for trees that are "
            "chosen",
            name);
    const bool several = draws == DraftDraws::independent || draws == DraftDraws::without_replacement;
    require((rule != DrawRule::rejection && rule != DrawRule::block) || !several,
            "{}: expected one sampled chain, got several draws at one point; draw one chain, or use UnifiedAccept or "
            "TraversalAccept",
            name);
    require(rule != DrawRule::k_seq || draws != DraftDraws::without_replacement,
            "{}: expected independent draws, got draws without replacement; use MultiStepAccept or TraversalAccept",
            name);
}

/// Of one tree; without draws the root alone suits every rule.
OUTRIDER_INLINE DraftDraws draws_of(const TokenTree& tree, const DraftSamples* samples) {
    if (samples == nullptr) return tree.drafted() == 0 ? DraftDraws::no_nodes : DraftDraws::none;
    if (samples->is_chain()) return DraftDraws::chain;
    return samples->kind() == DraftSamples::Kind::independent ? DraftDraws::independent
                                                              : DraftDraws::without_replacement;
}

OUTRIDER_INLINE Acceptance decide_by(DrawRule rule, const TokenTree& tree, const DraftSamples* samples,
                                     TargetLaw& target, KeyedDice& dice) {
    if (samples == nullptr) return accept_unified(tree, nullptr, target, dice);
    switch (rule) {
        case DrawRule::k_seq: return accept_by_nodes(tree, samples, target, dice, KSeqRule{});
        case DrawRule::block: return accept_block(tree, *samples, target, dice);
        case DrawRule::traversal: return accept_traversal(tree, *samples, target, dice);
        default: return accept_unified(tree, samples, target, dice);
    }
}

}  // namespace detail

template <DrawRule Rule>
Acceptance DrawAccept<Rule>::accept(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) const {
    detail::check_rule(Rule, detail::draws_of(tree, context.samples));
    TargetLaw target(tree, rows, context);
    require(context.samples == nullptr || context.samples->largest_token() < target.vocabulary(),
            "{}: token {} was drawn, the target's vocabulary has {}; map draft ids to target ids",
            detail::name_of(Rule), context.samples == nullptr ? kNoToken : context.samples->largest_token(),
            target.vocabulary());
    KeyedDice dice(context.sampling->seed, context.sampling->stream, static_cast<std::int64_t>(context.text.size()));
    return detail::decide_by(Rule, tree, context.samples, target, dice);
}

template <DrawRule Rule>
void DrawAccept<Rule>::check_draws(DraftDraws draws) const {
    detail::check_rule(Rule, draws);
}

}  // namespace outrider
