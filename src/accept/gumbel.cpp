#include <outrider/tensor/gumbel.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

namespace outrider {

namespace {

/// The best score so far.
struct Best {
    double score = -std::numeric_limits<double>::infinity();
    TokenId token = kNoToken;

    void offer(TokenId candidate, double value) {
        if (value > score || (value == score && candidate < token)) score = value, token = candidate;
    }
};

constexpr double kBitsPerNat = 1.4426950408889634;  // 1 / ln 2

/// [k] the largest complement of random bits whose noise can reach k ln 2; the last entry lets next to nothing through.
constexpr auto kLargestComplement = [] {
    std::array<std::uint64_t, 54> largest{};
    for (unsigned k = 0; k < 53; ++k) largest[k] = ~std::uint64_t{0} >> k;
    largest[53] = 0;
    return largest;
}();

constexpr std::size_t kBlock = 128;
using Block = std::array<std::uint64_t, kBlock>;

/// The complements of the random bits of tokens begin .. begin + kBlock - 1. Integers: the same on every machine.
[[gnu::always_inline]] inline void complements(const RandomKey& key, std::uint64_t begin, Block& out) {
    for (std::size_t j = 0; j < kBlock; ++j) out[j] = ~key.bits(begin + j);
}

void complements_anywhere(const RandomKey& key, std::uint64_t begin, Block& out) { complements(key, begin, out); }

#if defined(__x86_64__)
[[gnu::target("avx512f,avx512dq")]] void complements_avx512(const RandomKey& key, std::uint64_t begin, Block& out) {
    complements(key, begin, out);  // 64-bit products of eight lanes
}

const auto fill_complements =
    __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? complements_avx512 : complements_anywhere;
#else
constexpr auto fill_complements = complements_anywhere;
#endif

}  // namespace

TokenId gumbel_pick(std::span<const float> logits, std::span<const TokenId> tokens, double temperature,
                    const RandomKey& key) {
    Best best;
    for (const TokenId t : tokens)
        best.offer(
            t, double(logits[static_cast<std::size_t>(t)]) / temperature + key.gumbel(static_cast<std::uint64_t>(t)));
    return best.token;
}

// A token d below the best score needs noise of at least d, so u >= exp(-exp(-d)) and 1 - u <= exp(-d) = 2^-k with
// k = d / ln 2. As u = ((bits >> 12) + 1/2) / 2^52, the complement of its bits must be below 2^(64 - min(k, 52)): one
// comparison. One bit of slack covers the rounding of d. Whatever the bits, k >= 54 cannot win: the largest noise is
// 53 ln 2. Survivors, one in a thousand or so, are scored exactly.
TokenId gumbel_pick(std::span<const float> logits, float maximum, double temperature, const RandomKey& key) {
    const auto exact = [&](std::size_t t) { return double(logits[t]) / temperature + key.gumbel(t); };
    Best best;
    const auto first = static_cast<std::size_t>(std::find(logits.begin(), logits.end(), maximum) - logits.begin());
    best.offer(static_cast<TokenId>(first), exact(first));

    const auto scale = static_cast<float>(kBitsPerNat / temperature);
    Block complement;
    std::array<std::int32_t, kBlock> needed;
    std::array<std::uint16_t, kBlock> survivor;
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t count = std::min(kBlock, logits.size() - begin);
        const float* row = logits.data() + begin;
        const auto top = static_cast<float>((best.score - double(maximum) / temperature) * kBitsPerNat) - 1.0F;
        for (std::size_t j = 0; j < count; ++j) {
            const float k = top + (maximum - row[j]) * scale;
            needed[j] = static_cast<std::int32_t>(k < 0.0F ? 0.0F : k > 53.0F ? 53.0F : k);
        }
        fill_complements(key, begin, complement);
        std::size_t survivors = 0;
        for (std::size_t j = 0; j < count; ++j) {
            survivor[survivors] = static_cast<std::uint16_t>(j);
            survivors += complement[j] <= kLargestComplement[static_cast<std::size_t>(needed[j])] ? 1 : 0;
        }
        for (std::size_t i = 0; i < survivors; ++i)
            best.offer(static_cast<TokenId>(begin + survivor[i]), exact(begin + survivor[i]));
    }
    return best.token;
}

}  // namespace outrider
