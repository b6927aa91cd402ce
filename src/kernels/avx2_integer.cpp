// Integer products of AVX2: vpmaddubsw on 4-bit planes. A product pair of two planes' values is at most 15 * 127 * 2,
// so eight of them fit 16 bits and a whole block of 32 k is summed before it is widened.
#if defined(__x86_64__)
#include <immintrin.h>

#include <array>
#include <cstring>
#include <utility>

#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx2,fma,f16c")
namespace outrider::kernels {
namespace {

constexpr std::int64_t kPrefetchBytes = 3072;

OUTRIDER_INLINE __m256i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}

OUTRIDER_INLINE __m256i load(const std::byte* p) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(p)); }

OUTRIDER_INLINE __m256 load_halves(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

// sums[r][j] += plane (8 outputs, 4 k) times the rows' 4 k at x. The empty asm keeps products and sums together: left
// alone, gcc computes all products first and spills them.
template <int R>
OUTRIDER_INLINE void step(__m256i (&sums)[R][2], __m256i plane0, __m256i plane1, const std::int8_t* x) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) {
        const __m256i values = broadcast4(x + 32 * r);
        sums[r][0] = _mm256_add_epi16(sums[r][0], _mm256_maddubs_epi16(plane0, values));
        sums[r][1] = _mm256_add_epi16(sums[r][1], _mm256_maddubs_epi16(plane1, values));
        asm("" : "+x"(sums[r][0]), "+x"(sums[r][1]));
    }
}

template <int R>
OUTRIDER_INLINE void clear(__m256i (&sums)[R][2]) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
}

// The integer sums of one block, in 32 bits.
template <class F, int R>
OUTRIDER_INLINE void block_sums(const std::byte* w, const std::int8_t* x, __m256i (&wide)[R][2]) {
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    __m256i sums[R][2];
    clear(sums);
    if constexpr (F::kNibbles) {
        OUTRIDER_UNROLL
        for (int s = 0; s < 4; ++s) {
            const __m256i pair0 = load(w + 64 * s), pair1 = load(w + 64 * s + 32);
            step<R>(sums, _mm256_and_si256(pair0, low), _mm256_and_si256(pair1, low), x + 4 * s);
            step<R>(sums, _mm256_and_si256(_mm256_srli_epi16(pair0, 4), low),
                    _mm256_and_si256(_mm256_srli_epi16(pair1, 4), low), x + 16 + 4 * s);
        }
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 2; ++j) wide[r][j] = _mm256_madd_epi16(sums[r][j], ones);
    } else {  // 8 bits are two planes, 16 high + low
        OUTRIDER_UNROLL
        for (int s = 0; s < 8; ++s)
            step<R>(sums, _mm256_and_si256(load(w + 64 * s), low), _mm256_and_si256(load(w + 64 * s + 32), low), x + 4 * s);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 2; ++j) wide[r][j] = _mm256_madd_epi16(sums[r][j], ones);
        clear(sums);
        OUTRIDER_UNROLL
        for (int s = 0; s < 8; ++s)
            step<R>(sums, _mm256_and_si256(_mm256_srli_epi16(load(w + 64 * s), 4), low),
                    _mm256_and_si256(_mm256_srli_epi16(load(w + 64 * s + 32), 4), low), x + 4 * s);
        const __m256i sixteens = _mm256_set1_epi16(16);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 2; ++j)
                wide[r][j] = _mm256_add_epi32(wide[r][j], _mm256_madd_epi16(sums[r][j], sixteens));
    }
}

template <class F, int R>
void tile(const TileArgs& t) {
    __m256 acc[R][2];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    const std::byte* values = t.panel;
    const std::byte* scales = t.panel + t.blocks * F::kValueBytes;
    const std::int8_t* x = t.bytes;
    const RowScale* row = t.scales;
    for (std::int64_t b = t.blocks; b > 0; --b) {
        OUTRIDER_UNROLL
        for (int i = 0; i < F::kValueBytes; i += 64) __builtin_prefetch(values + kPrefetchBytes + i);
        __builtin_prefetch(scales + kPrefetchBytes);
        __m256i sums[R][2];
        block_sums<F, R>(values, x, sums);
        const __m256 d[2] = {load_halves(scales), load_halves(scales + 16)};
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256 scale = _mm256_set1_ps(row[r].scale);
            OUTRIDER_UNROLL
            for (int j = 0; j < 2; ++j) {
                __m256i sum = sums[r][j];
                if constexpr (F::kOffset)
                    sum = _mm256_add_epi32(sum, _mm256_slli_epi32(_mm256_set1_epi32(row[r].minus_all), F::kOffsetShift));
                acc[r][j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale), d[j], acc[r][j]);
            }
        }
        if constexpr (F::kMinimum) {
            const __m256 m[2] = {load_halves(scales + 32), load_halves(scales + 48)};
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) {
                const __m256 sum = _mm256_set1_ps(row[r].sum);
                for (int j = 0; j < 2; ++j) acc[r][j] = _mm256_fmadd_ps(m[j], sum, acc[r][j]);
            }
        }
        values += F::kValueBytes, scales += F::kScaleBytes, x += 32 * t.group, row += t.group;
    }
    float* y = t.y;
    for (int r = 0; r < R; ++r, y += t.ldy) {
        if (t.width == kPanel) {
            for (int j = 0; j < 2; ++j)
                _mm256_storeu_ps(y + 8 * j, t.add ? _mm256_add_ps(_mm256_loadu_ps(y + 8 * j), acc[r][j]) : acc[r][j]);
            continue;
        }
        alignas(32) float out[kPanel];
        _mm256_store_ps(out, acc[r][0]);
        _mm256_store_ps(out + 8, acc[r][1]);
        for (int c = 0; c < t.width; ++c) y[c] = t.add ? y[c] + out[c] : out[c];
    }
}

constexpr int kMaxTile = 6;  // 12 sums of 16 bits, 2 planes, 1 value, 1 product: all 16 registers

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

IntegerKernels avx2_integer_kernels() { return {multiply<Q40>, multiply<Q41>, multiply<Q80>}; }

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
