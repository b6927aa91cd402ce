// How a drafter would do on a text that is known: the rounds of greedy decoding without the target.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>
#include <outrider/draft/drafter.hpp>

namespace outrider {

/// A text as the target would write it, and its features.
struct TeacherText {
    std::span<const TokenId> tokens;
    std::int64_t answer = 0;  ///< the first token to be emitted; at least 1
    at::Tensor features;      ///< [tokens, F] of any floating type, in the columns that the drafter's target has
};

/// Feeds the drafter exactly what a decoder would, all texts side by side, and accepts what the texts say. Beta of the
/// result is that of greedy decoding up to what a different target pass would change.
[[nodiscard]] OUTRIDER_API DecodeStats teacher_forced_rounds(DraftModel& draft, std::span<const TeacherText> texts,
                                                             std::int64_t nodes);

}  // namespace outrider
