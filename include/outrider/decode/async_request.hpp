// What a request to an AsyncDecoder says beside its prompt, why one is refused, and what is counted.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include <outrider/core/error.hpp>
#include <outrider/core/stats.hpp>
#include <outrider/decode/result.hpp>
#include <outrider/decode/sink.hpp>

namespace outrider {

struct AsyncOptions {
    std::size_t queue = 256;  ///< requests that may wait beside those that are decoded; more are refused
    /// Tokens that the sequences being decoded may hold together, prompts and the longest texts they ask for: the
    /// memory of KV caches over that of one token. A request that does not fit yet waits. 0: what the
    /// target says (VerifierLimits::tokens), else no bound.
    std::int64_t tokens = 0;
    std::int64_t least = 0;  ///< tokens that each sequence counts for at least: a cache's smallest size
};

/// Callbacks run on the decoding thread, so a slow one holds up every text. They may call `submit`; they must not
/// destroy the decoder.
struct AsyncRequest {
    Sink sink = {};             ///< see Sink; what it throws ends this request alone
    std::stop_token stop = {};  ///< ends the text between two rounds, or takes the request out of the queue
    /// When the text ends though it is not finished (FinishReason::deadline), in the queue too.
    std::optional<std::chrono::steady_clock::time_point> deadline = {};
    int priority = 0;  ///< greater ones enter first; equal ones in the order of submission
    /// Called once for every accepted request when it has ended, whatever ended it, before its future is ready.
    std::function<void(const GenerationResult&)> ended = {};
};

/// Why a request was not taken.
enum class Refusal : unsigned char {
    queue_full,  ///< later there may be room
    too_large,   ///< it alone needs more memory than there is
    closed,      ///< no more requests are taken
};

class OUTRIDER_API RequestRefused : public Error {
public:
    RequestRefused(Refusal why, const std::string& text)
        : Error(text, why == Refusal::too_large ? ErrorKind::out_of_memory : ErrorKind::bad_request), why_(why) {}

    [[nodiscard]] Refusal why() const noexcept { return why_; }

private:
    Refusal why_;
};

/// Sums since the start, and what is there now.
struct AsyncMetrics {
    std::int64_t submitted = 0;  ///< taken; each ends as one of the five below
    std::int64_t refused = 0;    ///< not taken
    std::int64_t stopped = 0, length = 0, cancelled = 0, deadline = 0, failed = 0;  ///< by FinishReason
    std::int64_t rounds = 0;   ///< of the decoder, whatever the number of sequences
    std::int64_t errors = 0;   ///< rounds that reported one
    double queue_seconds = 0;  ///< that requests waited before they entered, summed
    std::size_t queued = 0, active = 0;
    std::int64_t tokens_held = 0;  ///< of AsyncOptions::tokens
    DecodeStats decoded;           ///< of all that have ended

    /// Counts a request that has ended.
    void count(const GenerationResult& result) {
        switch (result.finish) {
            case FinishReason::stop: ++stopped; break;
            case FinishReason::length: ++length; break;
            case FinishReason::deadline: ++deadline; break;
            case FinishReason::failed: ++failed; break;
            default: ++cancelled;
        }
        decoded += result.stats;
    }
};

}  // namespace outrider
