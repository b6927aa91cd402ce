// Bodies of gumbel.hpp.
#pragma once

#include <outrider/accept/detail/gumbel.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include <outrider/core/detail/vector_loops.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail {

/// The best score so far.
struct BestPick {
    double score = -std::numeric_limits<double>::infinity();
    TokenId token = kNoToken;

    void offer(TokenId candidate, double value) {
        if (value > score || (value == score && candidate < token)) score = value, token = candidate;
    }
};

inline constexpr double kBitsPerNat = 1.4426950408889634;  // 1 / ln 2

inline constexpr std::size_t kRandomBlock = 128;
using RandomBlock = std::array<std::uint64_t, kRandomBlock>;

/// Whether one of `count` tokens from `begin` on may win. `complement`: of their random bits; `largest`: the largest
/// one whose noise can reach what the token needs.
OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(bool, may_win,
                                     (const RandomKey& key, std::uint64_t begin, const float* row, std::size_t count,
                                      float top, float maximum, float scale, RandomBlock& complement,
                                      RandomBlock& largest),
                                     (key, begin, row, count, top, maximum, scale, complement, largest)) {
    std::array<std::int32_t, kRandomBlock> needed{};
    for (std::size_t j = 0; j < count; ++j) {
        const float k = top + (maximum - row[j]) * scale;
        needed[j] = static_cast<std::int32_t>(k < 0.0F ? 0.0F : k > 53.0F ? 53.0F : k);
    }
    for (std::size_t j = 0; j < kRandomBlock; ++j) complement[j] = ~key.bits(begin + j);
    for (std::size_t j = 0; j < kRandomBlock; ++j)
        largest[j] = ~std::uint64_t{0} >> static_cast<std::uint64_t>(needed[j]);
    std::uint64_t any = 0;
    for (std::size_t j = 0; j < count; ++j) any |= complement[j] <= largest[j] ? std::uint64_t{1} : std::uint64_t{0};
    return any != 0;
}

}  // namespace detail

OUTRIDER_INLINE TokenId gumbel_pick(std::span<const float> logits, std::span<const TokenId> tokens, double temperature,
                                    const RandomKey& key) {
    detail::BestPick best;
    for (const TokenId t : tokens)
        best.offer(
            t, double(logits[static_cast<std::size_t>(t)]) / temperature + key.gumbel(static_cast<std::uint64_t>(t)));
    return best.token;
}

// A token d below the best score needs noise of at least d, so u >= exp(-exp(-d)) and 1 - u <= exp(-d) = 2^-k with
// k = d / ln 2. As u = ((bits >> 12) + 1/2) / 2^52, the complement of its bits must be below 2^(64 - min(k, 52)): one
// comparison. One bit of slack covers the rounding of d. Whatever the bits, k >= 54 cannot win: the largest noise is
// 53 ln 2. Survivors, one in a thousand or so, are scored exactly, so that one too many changes nothing.
OUTRIDER_INLINE TokenId gumbel_pick(std::span<const float> logits, float maximum, double temperature,
                                    const RandomKey& key) {
    const auto exact = [&](std::size_t t) { return double(logits[t]) / temperature + key.gumbel(t); };
    detail::BestPick best;
    const auto first = static_cast<std::size_t>(std::find(logits.begin(), logits.end(), maximum) - logits.begin());
    best.offer(static_cast<TokenId>(first), exact(first));

    const auto scale = static_cast<float>(detail::kBitsPerNat / temperature);
    detail::RandomBlock complement, largest;
    for (std::size_t begin = 0; begin < logits.size(); begin += detail::kRandomBlock) {
        const std::size_t count = std::min(detail::kRandomBlock, logits.size() - begin);
        const auto top = static_cast<float>((best.score - double(maximum) / temperature) * detail::kBitsPerNat) - 1.0F;
        if (!detail::may_win(key, begin, logits.data() + begin, count, top, maximum, scale, complement, largest))
            continue;
        for (std::size_t j = 0; j < count; ++j)
            if (complement[j] <= largest[j]) best.offer(static_cast<TokenId>(begin + j), exact(begin + j));
    }
    return best.token;
}

}  // namespace outrider
