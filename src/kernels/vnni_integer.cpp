// Integer products of AVX-512 VNNI: vpdpbusd of 16 outputs x 4 k, summed in 32 bits.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc bug 105593, in its own header
#endif
#include <immintrin.h>

#include <array>
#include <cstring>
#include <utility>

#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace outrider::kernels {
namespace {

constexpr std::int64_t kPrefetchBytes = 3072;

OUTRIDER_INLINE __m512i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

OUTRIDER_INLINE __m512 load_halves(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}

template <int R>
OUTRIDER_INLINE void step(__m512i (&sums)[R], __m512i plane, const std::int8_t* x) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = _mm512_dpbusd_epi32(sums[r], plane, broadcast4(x + 32 * r));
}

template <class F, int R>
OUTRIDER_INLINE void block_sums(const std::byte* w, const std::int8_t* x, __m512i (&sums)[R]) {
    const __m512i low = _mm512_set1_epi8(15);
    OUTRIDER_UNROLL
    for (int s = 0; s < F::kValueBytes / 64; ++s) {
        const __m512i stored = _mm512_load_si512(w + 64 * s);
        if constexpr (F::kNibbles) {
            step<R>(sums, _mm512_and_si512(stored, low), x + 4 * s);
            step<R>(sums, _mm512_and_si512(_mm512_srli_epi16(stored, 4), low), x + 16 + 4 * s);
        } else {
            step<R>(sums, stored, x + 4 * s);
        }
    }
}

template <class F, int R>
void tile(const TileArgs& t) {
    __m512 acc[R];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
    const std::byte* values = t.panel;
    const std::byte* scales = t.panel + t.blocks * F::kValueBytes;
    const std::int8_t* x = t.bytes;
    const RowScale* row = t.scales;
    for (std::int64_t b = t.blocks; b > 0; --b) {
        OUTRIDER_UNROLL
        for (int i = 0; i < F::kValueBytes; i += 64) __builtin_prefetch(values + kPrefetchBytes + i);
        __builtin_prefetch(scales + kPrefetchBytes);
        __m512i sums[R];
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            if constexpr (F::kOffset) sums[r] = _mm512_slli_epi32(_mm512_set1_epi32(row[r].minus_all), F::kOffsetShift);
            else sums[r] = _mm512_setzero_si512();
        }
        block_sums<F, R>(values, x, sums);
        const __m512 d = load_halves(scales);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            acc[r] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[r]), _mm512_set1_ps(row[r].scale)), d, acc[r]);
        if constexpr (F::kMinimum) {
            const __m512 m = load_halves(scales + 32);
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(row[r].sum), acc[r]);
        }
        values += F::kValueBytes, scales += F::kScaleBytes, x += 32 * t.group, row += t.group;
    }
    float* y = t.y;
    const auto mask = static_cast<__mmask16>((1U << t.width) - 1);
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r, y += t.ldy)
        _mm512_mask_storeu_ps(y, mask, t.add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), acc[r]) : acc[r]);
}

constexpr int kMaxTile = 12;

template <class F, int... I>
constexpr std::array<Tile, sizeof...(I)> tiles(std::integer_sequence<int, I...>) {
    return {&tile<F, I + 1>...};
}

template <class F>
void multiply(const MultiplyArgs& args) {
    static constexpr auto kTiles = tiles<F>(std::make_integer_sequence<int, kMaxTile>{});
    walk_tiles(args, kTiles.data(), kMaxTile, 1);
}

}  // namespace

IntegerKernels vnni_integer_kernels() { return {multiply<Q40>, multiply<Q41>, multiply<Q80>}; }

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
