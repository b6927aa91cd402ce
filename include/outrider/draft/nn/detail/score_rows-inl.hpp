// Bodies of score_rows.hpp.
#pragma once

#include <outrider/draft/nn/detail/score_rows.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <outrider/core/detail/vector_loops.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

namespace detail::score {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors inside one function

using simd::get;
using simd::put;
using Lanes = simd::Vector<float>;
inline constexpr std::int64_t kWide = simd::kLanes<float>;

OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(float, exponentials_of, (float* x, std::int64_t count, std::int64_t padded),
                                     (x, count, padded)) {
    for (std::int64_t i = count; i < padded; ++i) x[i] = -3e38F;
    Lanes top = get(x), check{};
    for (std::int64_t i = 0; i < padded; i += kWide) {
        const Lanes v = get(x + i);
        top = v > top ? v : top;
        check += v * 0.0F;  // NaN for NaN and infinities
    }
    float highest = top[0], sound = check[0];
    for (std::int64_t j = 1; j < kWide; ++j) highest = top[j] > highest ? top[j] : highest, sound += check[j];
    for (std::int64_t i = 0; i < padded; i += kWide) put(x + i, simd::exp(get(x + i) - highest));
    for (std::int64_t i = count; i < padded; ++i) x[i] = 0.0F;
    return sound == 0.0F ? highest : std::numeric_limits<float>::quiet_NaN();
}

OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(std::int64_t, block_of,
                                     (const float* q, std::int64_t begin, std::int64_t padded, float least),
                                     (q, begin, padded, least)) {
    for (; begin < padded; begin += kWide) {
        const auto reach = get(q + begin) >= least;
        simd::Ints any = reach;
        std::int32_t hits = 0;
        for (std::int64_t j = 0; j < kWide; ++j) hits |= any[j];
        if (hits != 0) return begin;
    }
    return padded;
}

/// x *= 1 / sum of x.
OUTRIDER_INLINE OUTRIDER_VECTOR_LOOP(void, normalise, (float* x, std::int64_t padded), (x, padded)) {
    Lanes sum{};
    for (std::int64_t i = 0; i < padded; i += kWide) sum += get(x + i);
    float total = 0;
    for (std::int64_t j = 0; j < kWide; ++j) total += sum[j];
    for (std::int64_t i = 0; i < padded; i += kWide) put(x + i, get(x + i) * (1.0F / total));
}

#pragma GCC diagnostic pop

}  // namespace detail::score

OUTRIDER_INLINE float exponentials(float* x, std::int64_t count, std::int64_t padded) {
    return detail::score::exponentials_of(x, count, padded);
}

OUTRIDER_INLINE std::int64_t find_block(const float* q, std::int64_t begin, std::int64_t padded, float least) {
    return detail::score::block_of(q, begin, padded, least);
}

OUTRIDER_INLINE bool probabilities(float* x, std::int64_t count, std::int64_t padded) {
    if (std::isnan(detail::score::exponentials_of(x, count, padded))) {
        std::fill_n(x, padded, 0.0F);
        return false;
    }
    detail::score::normalise(x, padded);
    return true;
}

OUTRIDER_INLINE void rank_row(const float* q, std::span<const TokenId> vocabulary, std::size_t ranks,
                              RankedTokens& ranked) {
    ranked.tokens.clear(), ranked.log_q.clear();
    if (ranks == 0) return;
    using Entry = std::pair<float, std::int64_t>;
    // The top of the heap is the worst of the best: the smallest, of equals the one of the higher column.
    const auto better = [](const Entry& a, const Entry& b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    std::vector<Entry> best;
    const auto count = static_cast<std::int64_t>(vocabulary.size()),
               padded = static_cast<std::int64_t>(padded_row(vocabulary.size()));
    float bar = std::numeric_limits<float>::min();
    for (std::int64_t block = detail::score::block_of(q, 0, padded, bar); block < padded;
         block = detail::score::block_of(q, block + detail::score::kWide, padded, bar))
        for (std::int64_t c = block; c < std::min(block + detail::score::kWide, count); ++c) {
            if (!(q[c] >= bar) || (best.size() == ranks && !(q[c] > best.front().first))) continue;
            if (best.size() == ranks) std::pop_heap(best.begin(), best.end(), better), best.pop_back();
            best.emplace_back(q[c], c);
            std::push_heap(best.begin(), best.end(), better);
            if (best.size() == ranks) bar = best.front().first;
        }
    std::sort_heap(best.begin(), best.end(), better);
    for (const auto& [share, column] : best) {
        ranked.tokens.push_back(vocabulary[static_cast<std::size_t>(column)]);
        ranked.log_q.push_back(std::log(std::min(share, 1.0F)));
    }
}

}  // namespace outrider
