// Whether feedback goes on where the text that a drafter knows ends.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
#include <outrider/target/round.hpp>

namespace outrider::detail {

/// `text`: committed tokens and the pending one, none of a sequence that is new. Where the feedback does not fit,
/// `forget` is called, so that the sequence can be started afresh, and Error thrown.
template <typename Forget>
void check_continues(std::string_view who, std::span<const TokenId> text, const SequenceFeedback& feedback,
                     Forget&& forget) {
    const std::size_t before = text.empty() ? 0 : text.size() - 1;
    const TokenId next = feedback.tokens.empty() ? feedback.pending : feedback.tokens.front();
    const bool fits = before + feedback.tokens.size() == static_cast<std::size_t>(feedback.committed) &&
                      (text.empty() || text.back() == next);
    if (!fits) forget();
    require(fits,
            "{}: sequence {} has {} committed tokens and {} new ones, this drafter knows {}; give it the feedback of "
            "every round, from the prompt on",
            who, feedback.sequence, feedback.committed, feedback.tokens.size(), before);
}

}  // namespace outrider::detail
