// Products of AVX-512 BF16: vdpbf16ps adds two products of bf16 pairs to a float at once, twice the rate of float
// multiply-adds. The rows are rounded to bf16 for it; sums stay floats.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc bug 105593, in its own header
#endif
#include <immintrin.h>

#include <array>
#include <cstring>
#include <utility>

#include "half.hpp"
#include "kernel_table.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")
namespace outrider::kernels {
namespace {

constexpr int kTile = 8;  // rows, with two sums each; twelve at once take longer than six and six
constexpr std::int64_t kPrefetchBytes = 8192;

OUTRIDER_ALWAYS_INLINE __m512 add_products(__m512 sum, const std::uint32_t* weights, std::uint32_t pair) {
    const __m512i w = _mm512_load_si512(weights), x = _mm512_set1_epi32(static_cast<int>(pair));
    return _mm512_dpbf16_ps(sum, reinterpret_cast<const __m512bh&>(w), reinterpret_cast<const __m512bh&>(x));
}

// bf16 panel: [k / 2][16][2] halves. Pairs of even and of odd k / 2 have a sum each, which every tile adds at the end:
// one sum alone would wait for itself where rows are few.
template <int R>
void tile(const TileArgs& t) {
    __m512 even[R], odd[R];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) even[r] = odd[r] = _mm512_setzero_ps();
    const auto* w = reinterpret_cast<const std::uint32_t*>(t.panel);
    const std::uint32_t* x = t.pairs;
    for (std::int64_t b = t.blocks; b > 0; --b, x += 16 * (t.group - 1)) {
        OUTRIDER_KEEP_LOOP  // unrolled, as gcc would with up to seven rows, these cost more than eight
            for (int k = 0; k < 8; ++k, w += 2 * kPanel, x += 2) {
            __builtin_prefetch(w + kPrefetchBytes / 4);
            __builtin_prefetch(w + kPrefetchBytes / 4 + kPanel);
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) even[r] = add_products(even[r], w, x[16 * r]);
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) odd[r] = add_products(odd[r], w + kPanel, x[16 * r + 1]);
        }
    }
    float* y = t.y;
    const auto mask = static_cast<__mmask16>((1U << t.width) - 1);
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r, y += t.ldy) {
        const __m512 sum = _mm512_add_ps(even[r], odd[r]);
        _mm512_mask_storeu_ps(y, mask, t.add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), sum) : sum);
    }
}

template <int... I>
constexpr std::array<Tile, sizeof...(I)> tiles(std::integer_sequence<int, I...>) {
    return {&tile<I + 1>...};
}

void multiply(const MultiplyArgs& args) {
    static constexpr auto kTiles = tiles(std::make_integer_sequence<int, kTile>{});
    walk_tiles(args, kTiles.data(), kTile, 2);
}

// 16 floats to bf16, to nearest even; NaN stays NaN. Not vcvtneps2bf16, which takes subnormals for zero.
OUTRIDER_ALWAYS_INLINE __m256i round_to_bf16(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __m512i result = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16));
}

void round_pairs(const float* x, std::int64_t blocks, std::uint32_t* pairs, std::int64_t stride) {
    for (; blocks > 0; --blocks, x += 32, pairs += stride) {
        auto* to = reinterpret_cast<__m256i*>(pairs);
        _mm256_store_si256(to, round_to_bf16(_mm512_loadu_ps(x)));
        _mm256_store_si256(to + 1, round_to_bf16(_mm512_loadu_ps(x + 16)));
    }
}

void to_halves(CacheFormat format, const float* x, std::int64_t n, std::uint16_t* halves) {
    if (format == CacheFormat::f16) return vnni_table().to_halves(format, x, n, halves);
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(halves + i), round_to_bf16(_mm512_loadu_ps(x + i)));
    for (; i < n; ++i) halves[i] = float_to_bfloat16(x[i]);
}

}  // namespace

const Table& bf16_table() {
    static const Table kTable = [] {
        Table t = vnni_table();
        t.isa = Isa::bf16;
        t.multiply[static_cast<std::size_t>(WeightFormat::bf16)] = multiply;
        t.to_halves = to_halves, t.round_pairs = round_pairs;
        t.narrow = CacheFormat::bf16, t.score_panels = score_panels_bf16, t.mix_values = mix_values_bf16;
        return t;
    }();
    return kTable;
}

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
