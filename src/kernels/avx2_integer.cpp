// Integer products of AVX2: vpmaddubsw on 4-bit planes. A product pair of two planes' values is at most 15 * 127 * 2,
// so eight of them fit 16 bits and a whole block of 32 k is summed before it is widened.
#if defined(__x86_64__)
#include <immintrin.h>

#include <array>
#include <utility>

#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx2,fma,f16c")
namespace outrider::kernels {
namespace {

// Volatile: where planes of one load meet the same values twice, gcc would keep all their broadcasts, on the stack.
OUTRIDER_ALWAYS_INLINE __m256i broadcast4(const std::int8_t* p) {
    struct Word {
        std::int8_t bytes[4];
    };
    __m256i result;
    asm volatile("vpbroadcastd %1, %0" : "=x"(result) : "m"(*reinterpret_cast<const Word*>(p)));
    return result;
}

OUTRIDER_ALWAYS_INLINE __m256i load(const std::byte* p) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}

OUTRIDER_ALWAYS_INLINE __m256 load_halves(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(p)));
}

// sums[r][j] += plane (8 outputs, 4 k) times the rows' 4 k at x. The empty asm keeps products and sums together: left
// alone, gcc computes all products first and spills them.
template <int R>
OUTRIDER_ALWAYS_INLINE void step(__m256i (&sums)[R][2], __m256i plane0, __m256i plane1, const std::int8_t* x) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) {
        const __m256i values = broadcast4(x + 32 * r);
        sums[r][0] = _mm256_add_epi16(sums[r][0], _mm256_maddubs_epi16(plane0, values));
        sums[r][1] = _mm256_add_epi16(sums[r][1], _mm256_maddubs_epi16(plane1, values));
        asm("" : "+x"(sums[r][0]), "+x"(sums[r][1]));
    }
}

template <int R>
OUTRIDER_ALWAYS_INLINE void clear(__m256i (&sums)[R][2]) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
}

// The stored integers of 8 outputs (half 0 or 1 of the panel) at k = 4 s to 4 s + 3.
template <class F>
OUTRIDER_ALWAYS_INLINE __m256i plane(const std::byte* w, int s, int half) {
    const __m256i pair = load(w + 64 * (s % 4) + 32 * half);
    const __m256i nibble = _mm256_and_si256(s < 4 ? pair : _mm256_srli_epi16(pair, 4), _mm256_set1_epi8(15));
    if constexpr (F::kHighBits == 1) {
        const __m256i bits = load(w + 256 + 32 * half);
        const __m256i placed = s <= 4 ? _mm256_slli_epi16(bits, 4 - s) : _mm256_srli_epi16(bits, s - 4);
        return _mm256_or_si256(nibble, _mm256_and_si256(placed, _mm256_set1_epi8(16)));
    } else if constexpr (F::kHighBits == 2) {
        const __m256i bits = load(w + 256 + 64 * (s / 4) + 32 * half);
        const int shift = 2 * (s % 4);
        const __m256i placed = shift <= 4 ? _mm256_slli_epi16(bits, 4 - shift) : _mm256_srli_epi16(bits, shift - 4);
        return _mm256_or_si256(nibble, _mm256_and_si256(placed, _mm256_set1_epi8(48)));
    }
    return nibble;
}

template <int R>
OUTRIDER_ALWAYS_INLINE void widen(const __m256i (&sums)[R][2], std::int16_t factor, bool first, __m256i (&wide)[R][2]) {
    const __m256i factors = _mm256_set1_epi16(factor);
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r)
        for (int j = 0; j < 2; ++j) {
            const __m256i sum = _mm256_madd_epi16(sums[r][j], factors);
            wide[r][j] = first ? sum : _mm256_add_epi32(wide[r][j], sum);
        }
}

// All steps of a block of bytes, in two planes: low + 16 high.
template <int R>
OUTRIDER_ALWAYS_INLINE void byte_sums(const std::byte* w, const std::int8_t* x, __m256i (&wide)[R][2]) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i sums[R][2];
    clear(sums);
    OUTRIDER_UNROLL
    for (int s = 0; s < 8; ++s)
        step<R>(sums, _mm256_and_si256(load(w + 64 * s), nibble), _mm256_and_si256(load(w + 64 * s + 32), nibble),
                x + 4 * s);
    widen(sums, 1, true, wide);
    clear(sums);
    OUTRIDER_UNROLL
    for (int s = 0; s < 8; ++s)
        step<R>(sums, _mm256_and_si256(_mm256_srli_epi16(load(w + 64 * s), 4), nibble),
                _mm256_and_si256(_mm256_srli_epi16(load(w + 64 * s + 32), 4), nibble), x + 4 * s);
    widen(sums, 16, false, wide);
}

// Steps kBegin to kEnd - 1 of a block, in 32 bits. Products of 5-bit integers fit 16 bits in fours, of 6-bit ones in
// twos; bytes are two planes, 16 high + low.
template <class F, int R, int kBegin, int kEnd>
OUTRIDER_ALWAYS_INLINE void block_sums(const std::byte* w, const std::byte* low, const std::int8_t* x,
                                       __m256i (&wide)[R][2]) {
    if constexpr (F::kBytes) return byte_sums<R>(w, x, wide);
    __m256i sums[R][2];
    if constexpr (kPlanes<F>) {
        block_sums<Q40, R, 0, 8>(w, nullptr, x, wide);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 2; ++j) wide[r][j] = _mm256_slli_epi32(wide[r][j], 4);
        __m256i lows[R][2];
        block_sums<Q40, R, 0, 8>(low, nullptr, x, lows);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 2; ++j) wide[r][j] = _mm256_add_epi32(wide[r][j], lows[r][j]);
        return;
    }
    constexpr int kTogether = F::kHighBits == 0 ? 8 : F::kHighBits == 1 ? 4 : 2;
    OUTRIDER_UNROLL
    for (int i = kBegin; i < kEnd; ++i) {
        const int s = F::kHighBits == 0 ? i / 2 + 4 * (i % 2) : i;  // nibbles of one load follow each other
        if (i % kTogether == 0) clear(sums);
        step<R>(sums, plane<F>(w, s, 0), plane<F>(w, s, 1), x + 4 * s);
        if (i % kTogether == kTogether - 1) widen(sums, 1, i - kBegin < kTogether, wide);
    }
}

// sums + offset times minus the rows' sums over the steps.
template <class F, int R>
OUTRIDER_ALWAYS_INLINE void subtract_offset(const RowScale* row, bool low, bool high, __m256i (&sums)[R][2]) {
    if constexpr (F::kOffset) {
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256i all = _mm256_set1_epi32(row[r].minus_all), first = _mm256_set1_epi32(row[r].minus_low);
            const __m256i minus = _mm256_slli_epi32(low && high ? all
                                                    : low       ? first
                                                                : _mm256_sub_epi32(all, first),
                                                    F::kOffsetShift);
            for (int j = 0; j < 2; ++j) sums[r][j] = _mm256_add_epi32(sums[r][j], minus);
        }
    }
}

// Integer sums of a block for every row; where the format has a scale for each half, already multiplied by it.
template <class F, int R>
OUTRIDER_ALWAYS_INLINE void weighted_sums(const std::byte* w, const std::byte* low, const std::byte* block_scales,
                                          const std::int8_t* x, const RowScale* row, __m256i (&sums)[R][2]) {
    if constexpr (F::kHalves) {
        const auto factor = [&](int half, int j) {
            return _mm256_cvtepi8_epi32(
                _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block_scales + 16 * half + 8 * j)));
        };
        __m256i high[R][2];
        block_sums<F, R, 0, 4>(w, low, x, sums);
        subtract_offset<F, R>(row, true, false, sums);
        block_sums<F, R, 4, 8>(w, low, x, high);
        subtract_offset<F, R>(row, false, true, high);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            for (int j = 0; j < 2; ++j)
                sums[r][j] = _mm256_add_epi32(_mm256_mullo_epi32(sums[r][j], factor(0, j)),
                                              _mm256_mullo_epi32(high[r][j], factor(1, j)));
    } else {
        block_sums<F, R, 0, 8>(w, low, x, sums);
        subtract_offset<F, R>(row, true, true, sums);
    }
}

OUTRIDER_ALWAYS_INLINE __m256 small_integers(const std::byte* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// The factor d and the minimum m of 8 outputs.
template <class F>
OUTRIDER_ALWAYS_INLINE void load_scales(const std::byte* super, const std::byte* block, int half, __m256& d,
                                        __m256& m) {
    if constexpr (F::kHalves) {
        d = load_halves(super + 16 * half);
    } else if constexpr (F::kSuper) {
        d = _mm256_mul_ps(load_halves(super + 16 * half), small_integers(block + 8 * half));
        m = _mm256_sub_ps(_mm256_setzero_ps(),
                          _mm256_mul_ps(load_halves(super + 32 + 16 * half), small_integers(block + 16 + 8 * half)));
    } else {
        d = load_halves(block + 16 * half);
        if constexpr (F::kMinimum) m = load_halves(block + 32 + 16 * half);
    }
}

// The sums of a tile to its rows of y, or on top of them.
template <int R>
OUTRIDER_ALWAYS_INLINE void store_tile(const TileArgs& t, const __m256 (&acc)[R][2]) {
    float* y = t.y;
    OUTRIDER_UNROLL
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

template <class F, int R>
void tile(const TileArgs& t) {
    __m256 acc[R][2];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    auto [values, scales] = streams_of<F>(t.panel, t.blocks);
    const std::byte* low = t.low;
    const std::int8_t* x = t.bytes;
    const RowScale* row = t.scales;
    for (std::int64_t b = 0; b < t.blocks; ++b) {
        prefetch_block<F>(t.panel, t.low_ahead + b * kLowStep, b);
        const std::byte* super = scales + b / 8 * F::kSuperBytes;
        const std::byte* block = F::kSuper ? super + (F::kHalves ? 32 : 64) + b % 8 * 32 : scales + b * F::kScaleBytes;
        __m256i sums[R][2];
        weighted_sums<F, R>(values, low, block, x, row, sums);
        __m256 d[2], m[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (int j = 0; j < 2; ++j) load_scales<F>(super, block, j, d[j], m[j]);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m256 scale = _mm256_set1_ps(row[r].scale);
            OUTRIDER_UNROLL
            for (int j = 0; j < 2; ++j)
                acc[r][j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][j]), scale), d[j], acc[r][j]);
        }
        if constexpr (F::kMinimum) {
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) {
                const __m256 sum = _mm256_set1_ps(row[r].sum);
                for (int j = 0; j < 2; ++j) acc[r][j] = _mm256_fmadd_ps(m[j], sum, acc[r][j]);
            }
        }
        values += F::kStepBytes, low += kLowStep, x += 32 * t.group, row += t.group;
    }
    store_tile<R>(t, acc);
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

IntegerKernels avx2_integer_kernels() { return OUTRIDER_INTEGER_KERNELS(multiply); }

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
