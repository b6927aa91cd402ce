// Bodies of lossy.hpp.
#pragma once

#include <outrider/accept/lossy.hpp>

#include <concepts>

#include <outrider/accept/detail/target_law.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

template <LossyCriterion Criterion>
Acceptance LossyAccept<Criterion>::accept(const TokenTree& tree, const TreeRows& rows,
                                          const SequenceContext& context) const {
    TargetLaw target(tree, rows, context, std::same_as<Criterion, TypicalCriterion> ? 0.0 : 1.0);
    return accept_longest(tree, target, criterion_, unasked_);
}

}  // namespace outrider
