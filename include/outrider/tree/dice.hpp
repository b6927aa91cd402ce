// The two questions that acceptance rules ask of chance. Rules are templates on who answers: keyed random numbers in a
// decoder, an enumeration of all outcomes in tests.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <outrider/core/rng.hpp>

namespace outrider {

/// `accept(p)` is true with probability min(p, 1); `pick(w)` is index i with probability w[i] / sum w, where w >= 0 and
/// the sum is positive.
template <typename D>
concept Dice = requires(D& dice, double probability, std::span<const double> weights) {
    { dice.accept(probability) } -> std::same_as<bool>;
    { dice.pick(weights) } -> std::same_as<std::size_t>;
};

/// The answers of one decision, a function of (seed, stream, position) and of the order of questions within it. A round
/// emits at least one token, so that no two rounds of a text share a position.
class KeyedDice {
public:
    /// `position`: tokens of prompt and text before the first token that is decided.
    KeyedDice(std::uint64_t seed, std::uint64_t stream, std::int64_t position)
        : accept_(seed, stream, position, static_cast<std::uint64_t>(RandomPurpose::accept)),
          residual_(seed, stream, position, static_cast<std::uint64_t>(RandomPurpose::residual)) {}

    [[nodiscard]] bool accept(double probability) { return accept_.uniform(accepts_++) < probability; }

    [[nodiscard]] std::size_t pick(std::span<const double> weights) {
        double sum = 0;
        for (const double w : weights) sum += w;
        double u = residual_.uniform(picks_++) * sum;
        std::size_t last = 0;  // rounding may leave u at the end: then the last that is possible
        for (std::size_t i = 0; i < weights.size(); ++i) {
            if (!(weights[i] > 0)) continue;
            last = i;
            if ((u -= weights[i]) < 0) break;
        }
        return last;
    }

private:
    RandomKey accept_, residual_;
    std::uint64_t accepts_ = 0, picks_ = 0;
};

static_assert(Dice<KeyedDice>);

}  // namespace outrider
