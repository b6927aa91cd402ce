// What the loop counts. A plain struct per sequence (or summed over many), filled by the decoder, never printed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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

}  // namespace outrider
