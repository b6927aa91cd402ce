// What the numbers of a request may be, and the check of a whole one. The program's command line asks the same ranges.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <outrider/core/options.hpp>
#include <outrider/core/detail/range.hpp>
#include <outrider/core/detail/utf8_stream.hpp>

namespace outrider {

/// What the numbers of a request and of a decoder may be.
namespace ranges {
inline constexpr Range<std::int64_t> kMaxTokens{.low = 0};
inline constexpr Range<double> kTemperature{.low = 1e-4, .high = 1e4, .or_zero = true};
inline constexpr Range<double> kTopP{.low = 0, .high = 1, .bounds = Bounds::open_below};
inline constexpr Range<std::int64_t> kTopK{.low = 0};
inline constexpr Range<double> kMinP{.low = 0, .high = 1};
inline constexpr Range<double> kRepetitionPenalty{.low = 1e-6, .high = 1e6};  // what float32 logits stand
inline constexpr Range<double> kPenalty{.low = -1e3, .high = 1e3};
inline constexpr Range<std::int64_t> kLogprobs{.low = 0};
inline constexpr Range<std::int64_t> kNodes{.low = 0, .high = 1024};  // of a draft tree; far beyond what pays anywhere
inline constexpr Range<int> kThreads{.low = 0, .high = 1024};         // 0: one per physical core
inline constexpr Range<std::int64_t> kBatch{.low = 1, .high = 4096};  // sequences decoded together
inline constexpr Range<std::int64_t> kPrefillRows{.low = 1};          // tokens of prompts a step
inline constexpr Range<std::int64_t> kOwedTokens{.low = 1};           // with features, kept for a drafter
}  // namespace ranges

/// A stop string is text, and not empty: an empty one would end every text at once. Throws Error.
inline void check_stop(std::string_view stop) {
    require(!stop.empty() && is_valid_utf8(stop),
            "GenerationOptions: a stop string is empty or no valid UTF-8; leave it out");
}

/// Throws Error for an option out of its range.
inline void check_options(const GenerationOptions& o) {
    constexpr std::string_view where = "GenerationOptions";
    require_in(ranges::kMaxTokens, o.max_tokens, where, "max_tokens");
    require_in(ranges::kTemperature, o.temperature, where, "temperature");
    require_in(ranges::kTopP, o.top_p, where, "top_p");
    require_in(ranges::kTopK, o.top_k, where, "top_k");
    require_in(ranges::kMinP, o.min_p, where, "min_p");
    require_in(ranges::kRepetitionPenalty, o.repetition_penalty, where, "repetition_penalty");
    require_in(ranges::kPenalty, o.presence_penalty, where, "presence_penalty");
    require_in(ranges::kPenalty, o.frequency_penalty, where, "frequency_penalty");
    require_in(ranges::kMaxTokens, o.min_tokens, where, "min_tokens");
    for (const auto& [token, bias] : o.logit_bias)
        require(bias < std::numeric_limits<float>::infinity(),
                "{}: the logit_bias of token {} is {}, expected a number "
                "or -infinity",
                where, token, bias);
    if (o.logprobs) require_in(ranges::kLogprobs, *o.logprobs, where, "logprobs");
    for (const std::string& stop : o.stop) check_stop(stop);
}

}  // namespace outrider
