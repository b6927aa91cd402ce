// What asking a drafter costs, followed while decoding.
#pragma once

#include <algorithm>
#include <cstdint>

namespace outrider::budget {

/// Steady calls, and apart from them what a drafter's first call takes beside and what catching up takes for each token
/// that it has not seen. Fading means, of which one slow moment moves little. A decision for the rounds to come is
/// about steady calls; the others come once.
class DraftCost {
public:
    /// A call for `sequences` sequences that had not seen `tokens` tokens, all together, took this long.
    void learn(std::int64_t sequences, std::int64_t tokens, double seconds) {
        const auto s = double(sequences), late = double(tokens) - kSteadyTokens * s;
        ++calls_;
        late_seconds_ *= kFade, late_calls_ = late_calls_ * kFade + 1;
        if (calls_ == 1) {  // cold memory, and a prompt to read: the steady price is a part of it
            sequence_ = seconds / (s + std::max(late, 0.0) / kFirstTokens), token_ = sequence_ / kFirstTokens;
            return;
        }
        if (late > 0) {
            const double over = std::max(0.0, seconds - sequence_ * s);
            token_ += 0.25 * (std::min(over / late, steady_ > 0 ? 4 * token_ + sequence_ : over / late) - token_);
            late_seconds_ += std::min(over, catch_up(sequences, tokens));
            return;
        }
        steady_ = std::min(steady_ + 1, kMemory);
        const double one = steady_ > 3 ? std::min(seconds / s, most(1)) : seconds / s;
        sequence_ += (one - sequence_) / steady_;
        high_ = std::max(one, high_ + 0.05 * (one - high_));
    }

    /// A call that has nothing to catch up with.
    [[nodiscard]] double steady(std::int64_t sequences) const { return sequence_ * double(sequences); }
    /// The most that a call's own work is taken to be: beyond it the machine did other work.
    [[nodiscard]] double most(std::int64_t sequences) const {
        return 1.5 * std::max(high_, sequence_) * double(sequences);
    }
    /// What it takes beside for tokens that the drafter has not seen.
    [[nodiscard]] double catch_up(std::int64_t sequences, std::int64_t tokens) const {
        return token_ * std::max(0.0, double(tokens) - kSteadyTokens * double(sequences));
    }
    /// Catching up of the calls so far, prompts for the most part, spread over them.
    [[nodiscard]] double usual_catch_up() const { return late_seconds_ / (late_calls_ + kSpread); }

    /// Whether steady calls were seen.
    [[nodiscard]] bool known() const noexcept { return steady_ > 0; }

private:
    static constexpr double kSteadyTokens = 8;  ///< new tokens of a sequence that every call may have
    static constexpr double kFirstTokens = 8;   ///< tokens of a first call that are taken for as much as a steady call
    static constexpr double kMemory = 16;       ///< calls
    static constexpr double kFade = 0.995, kSpread = 64;

    double sequence_ = 0, token_ = 0, steady_ = 0;
    double high_ = 0;  ///< of a sequence, lately: a drafter's calls may be of two kinds, as those of a merged one are
    double late_seconds_ = 0, late_calls_ = 0;
    std::int64_t calls_ = 0;
};

}  // namespace outrider::budget
