#include <outrider/tensor/gumbel.hpp>

#include <algorithm>
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

}  // namespace

TokenId gumbel_pick(std::span<const float> logits, std::span<const TokenId> tokens, double temperature,
                    const RandomKey& key) {
    Best best;
    for (const TokenId t : tokens)
        best.offer(t, double(logits[static_cast<std::size_t>(t)]) / temperature + key.gumbel(static_cast<std::uint64_t>(t)));
    return best.token;
}

// A token d below the best score needs noise of at least d, so u >= exp(-exp(-d)) and 1 - u <= exp(-d) = 2^-k with
// k = d / ln 2. As u = ((bits >> 12) + 1/2) / 2^52, at least min(k, 52) of the leading bits must be ones: a test of one
// shift. One bit of slack covers the rounding of d; k >= 54 cannot win whatever its bits (the largest noise is 53 ln 2).
TokenId gumbel_pick(std::span<const float> logits, float maximum, double temperature, const RandomKey& key) {
    constexpr double kPerBit = 1.4426950408889634;  // 1 / ln 2
    const auto exact = [&](std::size_t t) { return double(logits[t]) / temperature + key.gumbel(t); };
    Best best;
    const auto first = static_cast<std::size_t>(std::find(logits.begin(), logits.end(), maximum) - logits.begin());
    best.offer(static_cast<TokenId>(first), exact(first));

    const auto scale = static_cast<float>(kPerBit / temperature);
    auto bound = static_cast<float>((best.score - double(maximum) / temperature) * kPerBit);  // k of the largest logit
    constexpr std::size_t kBlock = 64;
    std::uint64_t zeros[kBlock];
    for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
        const std::size_t count = std::min(kBlock, logits.size() - begin);
        for (std::size_t j = 0; j < count; ++j) zeros[j] = ~key.bits(begin + j);
        for (std::size_t j = 0; j < count; ++j) {
            const float bits = bound + (maximum - logits[begin + j]) * scale - 1.0F;
            const auto k = static_cast<unsigned>(std::clamp(bits, 0.0F, 53.0F));
            if (k == 53 || (k > 0 && (zeros[j] >> (64 - std::min(k, 52U))) != 0)) continue;
            best.offer(static_cast<TokenId>(begin + j), exact(begin + j));
            bound = static_cast<float>((best.score - double(maximum) / temperature) * kPerBit);
        }
    }
    return best.token;
}

}  // namespace outrider
