// What one request gives back.
#pragma once

#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/logprobs.hpp>
#include <outrider/core/stats.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// Why a text ended.
enum class FinishReason {
    running,    ///< it has not
    stop,       ///< an end token, or a stop string
    length,     ///< max_tokens, or the target's context is full
    cancelled,  ///< the callback said stop, or cancel() was called
    deadline,   ///< its time was up (AsyncDecoder)
    failed      ///< an exception of its callback or of a stage; GenerationResult::error tells
};

[[nodiscard]] constexpr std::string_view to_string(FinishReason reason) noexcept {
    switch (reason) {
        case FinishReason::running: return "running";
        case FinishReason::stop: return "stop";
        case FinishReason::length: return "length";
        case FinishReason::cancelled: return "cancelled";
        case FinishReason::deadline: return "deadline";
        case FinishReason::failed: return "failed";
    }
    return "unknown";
}

struct GenerationResult {
    /// Every token that the target chose, the end token included, and all of those that spell a stop string.
    std::vector<TokenId> tokens;
    /// Their text, exactly what a text callback received: nothing of an end token, and nothing from a stop string on.
    /// Empty when the prompt came without a Detokenizer.
    std::string text;
    FinishReason finish = FinishReason::running;
    DecodeStats stats;
    std::string error;  ///< with FinishReason::failed, what happened
    std::uint64_t seed =
        0;  ///< what its draws were keyed by: asked for with GenerationOptions::seed, it says the same again
    std::exception_ptr exception = {};         ///< with FinishReason::failed, the exception that `error` tells
    std::vector<TokenLogprobs> logprobs = {};  ///< one for each token, where GenerationOptions::logprobs asks for them
    std::vector<TokenId> prompt = {};          ///< what it was asked with
};

/// What a round that does not throw has to say.
struct StepOutcome {
    bool more = false;              ///< something is left to decode
    std::exception_ptr error = {};  ///< the round's first; null: none
};

}  // namespace outrider
