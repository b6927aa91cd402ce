// What a request says beside its prompt and its options: where its tokens go while it is decoded, and, to an
// AsyncDecoder, when it is to end. And why one is refused, and what is counted.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// One token as it is emitted.
struct EmittedToken {
    SequenceId sequence = 0;
    TokenId token = kNoToken;
    std::string_view
        text;  ///< what became certain with it: whole UTF-8 characters, may be empty; valid during the call
    const TokenLogprobs* logprobs = nullptr;  ///< where GenerationOptions::logprobs asks for them; valid as long
};

/// Wraps a callback that takes an EmittedToken, a text (`std::string_view`) or ids (`std::span<const TokenId>`), and
/// returns nothing or whether to go on: false ends the sequence. Called once for each emitted token, in order (on text
/// alone only when there is new text), so a text that a callback ends is the same whatever was drafted. A callable that
/// takes several of these is called with the first of them.
class Sink {
public:
    Sink() = default;

    template <typename F>
        requires(!std::same_as<std::remove_cvref_t<F>, Sink> &&
                 (std::invocable<F&, const EmittedToken&> || std::invocable<F&, std::string_view> ||
                  std::invocable<F&, std::span<const TokenId>>))
    Sink(F&& callback) {  // NOLINT: implicit on purpose, a lambda is a sink
        using Callback = std::decay_t<F>;
        if constexpr (std::is_pointer_v<std::remove_cvref_t<F>>) {
            if (callback == nullptr) return;
        } else if constexpr (requires { callback.operator bool(); }) {
            if (!callback) return;  // an empty std::function
        }
        wants_text_ = !std::invocable<F&, const EmittedToken&> && std::invocable<F&, std::string_view>;
        on_token_ = [callback = Callback(std::forward<F>(callback))](const EmittedToken& emission) mutable {
            if constexpr (std::invocable<F&, const EmittedToken&>)
                return goes_on([&]() -> decltype(auto) { return callback(emission); });
            else if constexpr (std::invocable<F&, std::string_view>)
                return emission.text.empty() || goes_on([&]() -> decltype(auto) { return callback(emission.text); });
            else
                return goes_on(
                    [&]() -> decltype(auto) { return callback(std::span<const TokenId>(&emission.token, 1)); });
        };
    }

    /// Whether it takes text alone, so that a prompt without a Detokenizer would leave it idle.
    [[nodiscard]] bool wants_text() const noexcept { return wants_text_; }

    /// False: stop.
    bool operator()(const EmittedToken& emission) { return !on_token_ || on_token_(emission); }

private:
    template <typename Call>
    static bool goes_on(Call&& call) {
        if constexpr (std::is_void_v<decltype(call())>)
            return call(), true;
        else
            return static_cast<bool>(call());
    }

    std::function<bool(const EmittedToken&)> on_token_;
    bool wants_text_ = false;
};

struct AsyncOptions {
    std::size_t queue = 256;  ///< requests that may wait beside those that are decoded; more are refused
    /// Tokens that the sequences being decoded may hold together, prompts and the longest texts they ask for: the
    /// memory of KV caches over that of one token. A request that does not fit yet waits. 0: what the
    /// target says (VerifierLimits::tokens), else no bound.
    std::int64_t tokens = 0;
    std::int64_t least = 0;  ///< tokens that each sequence counts for at least: a cache's smallest size
    /// Of the tokens of a sequence, what its cache takes beside them while it grows. One grows at a time: room for the
    /// largest one's is left free.
    double growing = 0;
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
