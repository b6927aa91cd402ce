// Attention of AVX-512 BF16 over a cache of bf16: vdpbf16ps adds two products to each sum at once, of neighbouring
// elements of a key, or of neighbouring positions. Queries and weights are rounded to bf16 for it, as rows are that
// meet bf16 weights; sums stay floats, and a query's weights are divided by the sum of the unrounded ones. Every score
// and every output is one chain of sums, as on the other paths.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc bug 105593, in its own header
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernel_table.hpp"
#include "target.hpp"

OUTRIDER_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace outrider::kernels {
namespace {

#include "attention_walk.inl"

constexpr int kMixTile = 6;                   // queries whose sums stay in registers
constexpr std::int64_t kMostElements = 1024;  // of a head; longer ones go the way of floats

OUTRIDER_ALWAYS_INLINE __m512 add_products(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<const __m512bh&>(a), reinterpret_cast<const __m512bh&>(b));
}

// To nearest even; subnormals become zero, for which the products take them anyway.
OUTRIDER_ALWAYS_INLINE __m256i round_floats(__m512 x) {
    const __m256bh halves = _mm512_cvtneps_pbh(x);
    return reinterpret_cast<const __m256i&>(halves);
}

OUTRIDER_ALWAYS_INLINE __m512i join_halves(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}

OUTRIDER_ALWAYS_INLINE __m256i load_16(const std::uint16_t* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}

// Pairs of neighbouring elements, [head_dim / 2][kScoreQueries].
void pair_queries(const ScoreArgs& a, std::uint32_t* pairs) {
    const auto mask = static_cast<__mmask16>((1U << a.queries) - 1);
    for (std::int64_t d = 0; d < a.head_dim; d += 2, pairs += kScoreQueries) {
        const float* q = a.q + d * kScoreQueries;
        _mm512_mask_storeu_epi32(pairs, mask,
                                 join_halves(round_floats(_mm512_maskz_loadu_ps(mask, q)),
                                             round_floats(_mm512_maskz_loadu_ps(mask, q + kScoreQueries))));
    }
}

template <int Q, int kPanels>
OUTRIDER_ALWAYS_INLINE void score_tile(const ScoreArgs& a, std::int64_t panel, const std::uint32_t* q, float* scores) {
    alignas(64) static constexpr std::uint16_t kInTurn[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                              21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                              11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i in_turn = _mm512_load_si512(kInTurn);
    __m512 sum[Q][kPanels];
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) OUTRIDER_UNROLL
    for (int j = 0; j < kPanels; ++j) sum[i][j] = _mm512_setzero_ps();
    const std::int64_t at = panel * a.head_dim * kKeyPanel;
    const auto* keys = static_cast<const std::uint16_t*>(a.keys) + at;
    for (std::int64_t d = 0; d < a.head_dim; d += 2, q += kScoreQueries) {
        prefetch_cache<CacheFormat::bf16>(a.keys, at + d * kPanels * kKeyPanel, 2 * kPanels * kKeyPanel, a.then);
        __m512i key[kPanels];
        OUTRIDER_UNROLL
        for (int j = 0; j < kPanels; ++j)
            key[j] = _mm512_permutexvar_epi16(in_turn, _mm512_loadu_si512(keys + (j * a.head_dim + d) * kKeyPanel));
        OUTRIDER_UNROLL
        for (int i = 0; i < Q; ++i) {
            const __m512i query = _mm512_set1_epi32(static_cast<int>(q[i]));
            OUTRIDER_UNROLL
            for (int j = 0; j < kPanels; ++j) sum[i][j] = add_products(sum[i][j], key[j], query);
        }
    }
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) OUTRIDER_UNROLL
    for (int j = 0; j < kPanels; ++j) _mm512_storeu_ps(scores + i * a.stride + (panel + j) * kKeyPanel, sum[i][j]);
}

// Where the weights stand, one after another from the query's first on; a zero follows the last of an odd number.
void round_weights(const MixArgs& a) {
    for (int i = 0; i < a.queries; ++i) {
        float* weights = a.weights + i * a.stride;
        auto* halves = reinterpret_cast<std::byte*>(weights);
        for (std::int64_t p = 0; p < a.positions; p += 16) {
            const std::int64_t left = a.positions - p;
            const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffU : (1U << left) - 1);
            const auto even = static_cast<__mmask16>(left >= 16 ? 0xffffU : (1U << (left + left % 2)) - 1);
            _mm256_mask_storeu_epi16(halves + 2 * p, even, round_floats(_mm512_maskz_loadu_ps(mask, weights + p)));
        }
    }
}

// V vectors of the head's elements. Pairs of two and of four come out of unpacking, which leaves elements 0-3, 8-11,
// ... of each 32 in one vector and 4-7, 12-15, ... in the next.
template <int V>
OUTRIDER_ALWAYS_INLINE void load_pairs(const std::uint16_t* x, const std::uint16_t* y, __m512i* pairs) {
    if constexpr (V == 1) {
        pairs[0] = join_halves(load_16(x), load_16(y));
    } else {
        OUTRIDER_UNROLL
        for (int j = 0; j < V; j += 2) {
            const __m512i first = _mm512_loadu_si512(x + 16 * j), second = _mm512_loadu_si512(y + 16 * j);
            pairs[j] = _mm512_unpacklo_epi16(first, second), pairs[j + 1] = _mm512_unpackhi_epi16(first, second);
        }
    }
}

// Between that order and the elements' own.
OUTRIDER_ALWAYS_INLINE void unpack_order(__m512& a, __m512& b) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const __m512i high = _mm512_setr_epi32(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    const __m512 first = _mm512_permutex2var_ps(a, low, b);
    b = _mm512_permutex2var_ps(a, high, b), a = first;
}
OUTRIDER_ALWAYS_INLINE void own_order(__m512& a, __m512& b) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i high = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const __m512 first = _mm512_permutex2var_ps(a, low, b);
    b = _mm512_permutex2var_ps(a, high, b), a = first;
}

template <int Q, int V, bool kListed>
OUTRIDER_ALWAYS_INLINE void mix_tile(const MixArgs& a, int query, std::int64_t d) {
    __m512 acc[Q][V];
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) {
        OUTRIDER_UNROLL
        for (int j = 0; j < V; ++j)
            acc[i][j] = a.resume ? _mm512_loadu_ps(a.out[query + i] + d + 16 * j) : _mm512_setzero_ps();
        OUTRIDER_UNROLL
        for (int j = 0; j + 1 < V; j += 2) unpack_order(acc[i][j], acc[i][j + 1]);
    }
    const auto* values = static_cast<const std::uint16_t*>(a.values);
    const auto* weights = reinterpret_cast<const std::byte*>(a.weights + query * a.stride);
    for (std::int64_t p = 0; p < a.positions; p += 2, weights += 4) {
        const std::int64_t next = std::min(p + 1, a.positions - 1);  // of an odd number: weighted with zero
        const std::int64_t at = (kListed ? a.slots[p] : a.first + p) * a.slot_stride + d,
                           other = (kListed ? a.slots[next] : a.first + next) * a.slot_stride + d;
        if constexpr (!kListed) {
            prefetch_cache<CacheFormat::bf16>(a.values, at, 16 * V, a.then);
            prefetch_cache<CacheFormat::bf16>(a.values, other, 16 * V, a.then);
        }
        __m512i value[V];
        load_pairs<V>(values + at, values + other, value);
        OUTRIDER_UNROLL
        for (int i = 0; i < Q; ++i) {
            int pair = 0;
            std::memcpy(&pair, weights + i * a.stride * 4, 4);
            const __m512i weight = _mm512_set1_epi32(pair);
            OUTRIDER_UNROLL
            for (int j = 0; j < V; ++j) acc[i][j] = add_products(acc[i][j], value[j], weight);
        }
    }
    OUTRIDER_UNROLL
    for (int i = 0; i < Q; ++i) {
        const __m512 factor = _mm512_set1_ps(a.factors != nullptr ? a.factors[query + i] : 1.0F);
        OUTRIDER_UNROLL
        for (int j = 0; j + 1 < V; j += 2) own_order(acc[i][j], acc[i][j + 1]);
        OUTRIDER_UNROLL
        for (int j = 0; j < V; ++j) _mm512_storeu_ps(a.out[query + i] + d + 16 * j, _mm512_mul_ps(acc[i][j], factor));
    }
}

template <bool kListed>
void mix_pairs(const MixArgs& a) {
    const int parts = (a.queries + kMixTile - 1) / kMixTile;
    for (int part = 0, query = 0; part < parts; ++part) {
        const int now = (a.queries - query) / (parts - part);
        with_count<kMixTile>(now, [&](auto count) {
            std::int64_t d = 0;
            for (; d + 64 <= a.head_dim; d += 64) mix_tile<count, 4, kListed>(a, query, d);
            for (; d + 32 <= a.head_dim; d += 32) mix_tile<count, 2, kListed>(a, query, d);
            for (; d < a.head_dim; d += 16) mix_tile<count, 1, kListed>(a, query, d);
        });
        query += now;
    }
}

}  // namespace

void score_panels_bf16(const ScoreArgs& a) {
    if (a.format != CacheFormat::bf16 || a.head_dim > kMostElements) return vnni_table().score_panels(a);
    alignas(64) std::uint32_t pairs[kMostElements / 2 * kScoreQueries];
    pair_queries(a, pairs);
    with_count<kScoreQueries>(a.queries, [&](auto count) {
        constexpr int kTogether = count <= 6 ? 4 : 2;  // panels
        std::int64_t panel = 0;
        for (; panel + kTogether <= a.panels; panel += kTogether)
            score_tile<count, kTogether>(a, panel, pairs, a.scores);
        for (; panel < a.panels; ++panel) score_tile<count, 1>(a, panel, pairs, a.scores);
    });
}

void mix_values_bf16(const MixArgs& a) {
    if (a.format != CacheFormat::bf16) return vnni_table().mix_values(a);
    round_weights(a);
    if (a.slots != nullptr)
        mix_pairs<true>(a);
    else
        mix_pairs<false>(a);
}

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
