// Counter-based random numbers: pure functions of their key, never of the order of consumption. A draw is named by
// (seed, stream, position, index), so a token's noise is the same whatever was drafted, batched or rejected before it.
#pragma once

#include <cmath>
#include <cstdint>

namespace outrider {

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits with full avalanche.
[[nodiscard]] constexpr std::uint64_t mix64(std::uint64_t x) noexcept {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/// Key of all the draws at one place of one text. `purpose` separates independent uses (picks, drafts, tests).
class RandomKey {
public:
    constexpr RandomKey(std::uint64_t seed, std::uint64_t stream, std::int64_t position,
                        std::uint64_t purpose = 0) noexcept
        : key_(mix64(mix64(mix64(mix64(seed) ^ stream) ^ static_cast<std::uint64_t>(position)) ^ purpose)) {}

    /// Of what `value` says.
    [[nodiscard]] static constexpr RandomKey of(std::uint64_t value) noexcept { return RandomKey(value); }
    [[nodiscard]] constexpr std::uint64_t value() const noexcept { return key_; }

    /// 64 random bits of draw `index`.
    [[nodiscard]] constexpr std::uint64_t bits(std::uint64_t index) const noexcept {
        return mix64(key_ ^ mix64(index));
    }

    /// Uniform in the open interval (0, 1): neither end can occur, so logarithms are finite.
    [[nodiscard]] constexpr double uniform(std::uint64_t index) const noexcept {
        return (static_cast<double>(bits(index) >> 12) + 0.5) * 0x1.0p-52;
    }

    /// Standard Gumbel noise, -log(-log u).
    [[nodiscard]] double gumbel(std::uint64_t index) const noexcept { return -std::log(-std::log(uniform(index))); }

private:
    explicit constexpr RandomKey(std::uint64_t value) noexcept : key_(value) {}

    std::uint64_t key_;
};

/// Purposes in use; each names an independent family of draws.
enum class RandomPurpose : std::uint64_t { pick = 0, accept = 1, residual = 2, draft = 3 };

}  // namespace outrider
