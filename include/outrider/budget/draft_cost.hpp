// What asking a drafter costs, followed while decoding.
#pragma once

#include <algorithm>
#include <cstdint>

namespace outrider {

/// Seconds for each sequence that is asked, and for each token that it has to catch up with because it was not asked
/// for some rounds. Fading means, of which one slow moment moves little.
class DraftCost {
public:
    /// A call for `sequences` sequences that had not seen `tokens` tokens, all together, took this long.
    void learn(std::int64_t sequences, std::int64_t tokens, double seconds) {
        const auto s = double(sequences), n = double(tokens);
        const bool catching_up = n > kSteadyTokens * s;
        if (weight_ == 0 && catching_up) {
            sequence_ = high_ = seconds / (s + n / kAmortised), token_ = sequence_ / kAmortised;
            return;
        }
        if (weight_ >= 3)
            seconds = std::min(seconds, 1.5 * (std::max(high_, sequence_) * s + catch_up(sequences, tokens)));
        if (catching_up) {
            // A merged drafter's calls get cheaper when a part of it begins to rest: a steady call costs no more than
            // this.
            sequence_ += 0.25 * (std::min(seconds / s, sequence_) - sequence_);
            token_ += 0.25 * (std::max(0.0, seconds - sequence_ * s) / n - token_);
            return;
        }
        weight_ = std::min(weight_ + 1, 16.0);
        sequence_ += (seconds / s - sequence_) / weight_;
        high_ = std::max(seconds / s, high_ + 0.05 * (seconds / s - high_));
    }

    /// What a call takes now, catching up included.
    [[nodiscard]] double once(std::int64_t sequences, std::int64_t tokens) const {
        return sequence_ * double(sequences) + catch_up(sequences, tokens);
    }

    /// The same with catching up spread over the rounds to come.
    [[nodiscard]] double lasting(std::int64_t sequences, std::int64_t tokens) const {
        return sequence_ * double(sequences) + catch_up(sequences, tokens) / kAmortised;
    }

    [[nodiscard]] bool known() const noexcept { return weight_ > 0; }

private:
    static constexpr double kSteadyTokens = 8;  ///< new tokens of a sequence that every call may have
    static constexpr double kAmortised = 32;    ///< rounds that a catch-up is spread over

    [[nodiscard]] double catch_up(std::int64_t sequences, std::int64_t tokens) const {
        return token_ * std::max(0.0, double(tokens) - kSteadyTokens * double(sequences));
    }

    double sequence_ = 0, token_ = 0, weight_ = 0;
    double high_ = 0;  ///< of a sequence, lately: a drafter's calls may be of two kinds, as those of a merged one are
};

}  // namespace outrider
