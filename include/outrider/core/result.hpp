// What a request gives back, and what the loop counts and measures meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/types.hpp>

namespace outrider {

/// Seconds spent in each stage. `other` is the decoder's own time: everything outside the five calls.
struct StageSeconds {
    double prefill = 0, draft = 0, verify = 0, accept = 0, commit = 0, other = 0;

    [[nodiscard]] double decoding() const { return draft + verify + accept + commit + other; }

    StageSeconds& operator+=(const StageSeconds& more) {
        prefill += more.prefill, draft += more.draft, verify += more.verify;
        accept += more.accept, commit += more.commit, other += more.other;
        return *this;
    }
};

struct DecodeStats {
    std::int64_t prompt_tokens = 0;
    std::int64_t resumed = 0;                      ///< of these, found in texts that the target keeps
    std::int64_t tokens = 0;                       ///< emitted
    std::int64_t rounds = 0;                       ///< target passes this sequence took part in, prefill apart
    std::int64_t drafted = 0;                      ///< nodes proposed, roots not counted
    std::int64_t accepted = 0;                     ///< nodes kept, roots not counted
    std::vector<std::int64_t> drafted_per_depth;   ///< [d - 1]: rounds whose tree reached depth d
    std::vector<std::int64_t> accepted_per_depth;  ///< [d - 1]: rounds that kept a node of depth d
    StageSeconds seconds;  ///< a batch's time is shared equally among the sequences of the round

    /// Tokens per target pass.
    [[nodiscard]] double beta() const { return rounds > 0 ? double(tokens) / double(rounds) : 0.0; }

    DecodeStats& operator+=(const DecodeStats& more) {
        prompt_tokens += more.prompt_tokens, resumed += more.resumed, tokens += more.tokens, rounds += more.rounds;
        drafted += more.drafted, accepted += more.accepted, seconds += more.seconds;
        add(drafted_per_depth, more.drafted_per_depth);
        add(accepted_per_depth, more.accepted_per_depth);
        return *this;
    }

private:
    static void add(std::vector<std::int64_t>& sums, const std::vector<std::int64_t>& more) {
        if (sums.size() < more.size()) sums.resize(more.size(), 0);
        for (std::size_t d = 0; d < more.size(); ++d) sums[d] += more[d];
    }
};

/// What one pass costs: see Verifier::pass_times.
struct PassTime {
    std::int64_t rows = 0;
    double seconds = 0;
};

/// See GenerationOptions::logprobs.
struct TokenLogprob {
    TokenId token = kNoToken;
    double logprob = 0;  ///< natural logarithm; -infinity: the law excludes the token

    [[nodiscard]] bool operator==(const TokenLogprob&) const = default;
};

/// Of one emitted token.
struct TokenLogprobs {
    double logprob = 0;             ///< of the token itself
    std::vector<TokenLogprob> top;  ///< the most probable ones, best first, equal ones by id; none that is excluded

    [[nodiscard]] bool operator==(const TokenLogprobs&) const = default;
};

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
