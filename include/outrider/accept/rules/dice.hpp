// The two questions that acceptance rules ask of chance. Rules are templates on who answers: keyed random numbers in a
// decoder, an enumeration of all outcomes in tests.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/detail/rng.hpp>

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

    /// Sums blocks, then looks into one: two passes over a vocabulary are most of what a pick costs.
    [[nodiscard]] std::size_t pick(std::span<const double> weights) {
        constexpr std::size_t kBlock = 512, kLanes = 8;
        blocks_.clear();
        double sum = 0;
        for (std::size_t begin = 0; begin < weights.size(); begin += kBlock) {
            const std::size_t end = std::min(begin + kBlock, weights.size());
            std::array<double, kLanes> lane{};
            std::size_t i = begin;
            for (; i + kLanes <= end; i += kLanes)
                for (std::size_t j = 0; j < kLanes; ++j) lane[j] += weights[i + j];
            for (; i < end; ++i) lane[0] += weights[i];
            double block = 0;
            for (const double x : lane) block += x;
            blocks_.push_back(block);
            sum += block;
        }
        double u = residual_.uniform(picks_++) * sum;
        std::size_t block = 0;
        while (block + 1 < blocks_.size() && u >= blocks_[block]) u -= blocks_[block++];
        std::size_t last = weights.size();  // rounding may leave u at a block's end: then the last that is possible
        for (std::size_t i = block * kBlock; i < weights.size(); ++i) {
            if (!(weights[i] > 0)) continue;
            last = i;
            if ((u -= weights[i]) < 0) return i;
        }
        if (last < weights.size()) return last;
        while (last > 0 && !(weights[last - 1] > 0)) --last;
        return last > 0 ? last - 1 : 0;
    }

private:
    RandomKey accept_, residual_;
    std::uint64_t accepts_ = 0, picks_ = 0;
    std::vector<double> blocks_;
};

static_assert(Dice<KeyedDice>);

}  // namespace outrider
