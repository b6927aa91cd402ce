// Integer products of AVX-512 VNNI: vpdpbusd of 16 outputs x 4 k, summed in 32 bits.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc bug 105593, in its own header
#endif
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
namespace outrider::kernels {
namespace {

OUTRIDER_ALWAYS_INLINE __m512i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
}

OUTRIDER_ALWAYS_INLINE __m512 load_halves(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
}

template <int R>
OUTRIDER_ALWAYS_INLINE void step(__m512i (&sums)[R], __m512i plane, const std::int8_t* x) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = _mm512_dpbusd_epi32(sums[r], plane, broadcast4(x + 32 * r));
}

// The stored integers of 16 outputs at k = 4 s to 4 s + 3; `low`: a block's low plane.
template <class F>
OUTRIDER_ALWAYS_INLINE __m512i plane(const std::byte* w, const std::byte* low, int s) {
    if constexpr (F::kBytes) return _mm512_load_si512(w + 64 * s);
    const __m512i pair = _mm512_load_si512(w + 64 * (s % 4));
    if constexpr (kPlanes<F>) {
        const __m512i nibbles = _mm512_load_si512(low + 64 * (s % 4));
        return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), s < 4 ? nibbles : _mm512_srli_epi16(nibbles, 4),
                                         s < 4 ? _mm512_slli_epi16(pair, 4) : pair, 0xca);  // mask ? low : high
    }
    const __m512i nibble = _mm512_and_si512(s < 4 ? pair : _mm512_srli_epi16(pair, 4), _mm512_set1_epi8(15));
    if constexpr (F::kHighBits == 1) {
        const __m512i bits = _mm512_load_si512(w + 256);
        const __m512i placed = s <= 4 ? _mm512_slli_epi16(bits, 4 - s) : _mm512_srli_epi16(bits, s - 4);
        return _mm512_or_si512(nibble, _mm512_and_si512(placed, _mm512_set1_epi8(16)));
    } else if constexpr (F::kHighBits == 2) {
        const __m512i bits = _mm512_load_si512(w + 256 + 64 * (s / 4));
        const int shift = 2 * (s % 4);
        const __m512i placed = shift <= 4 ? _mm512_slli_epi16(bits, 4 - shift) : _mm512_srli_epi16(bits, shift - 4);
        return _mm512_or_si512(nibble, _mm512_and_si512(placed, _mm512_set1_epi8(48)));
    }
    return nibble;
}

template <class F, int R, int kBegin, int kEnd>
OUTRIDER_ALWAYS_INLINE void block_sums(const std::byte* w, const std::byte* low, const std::int8_t* x,
                                       __m512i (&sums)[R]) {
    OUTRIDER_UNROLL
    for (int i = kBegin; i < kEnd; ++i) {
        // Nibbles of one load follow each other: 0, 4, 1, 5, ...
        const int s = F::kBytes || kEnd - kBegin < 8 ? i : i / 2 + 4 * (i % 2);
        step<R>(sums, plane<F>(w, low, s), x + 4 * s);
    }
}

template <class F, int R>
OUTRIDER_ALWAYS_INLINE void start(const RowScale* row, bool low, bool high, __m512i (&sums)[R]) {
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) {
        if constexpr (F::kOffset) {
            const __m512i all = _mm512_set1_epi32(row[r].minus_all), first = _mm512_set1_epi32(row[r].minus_low);
            sums[r] = _mm512_slli_epi32(low && high ? all
                                        : low       ? first
                                                    : _mm512_sub_epi32(all, first),
                                        F::kOffsetShift);
        } else {
            sums[r] = _mm512_setzero_si512();
        }
    }
}

// Integer sums of a block for every row; where the format has a scale for each half, already multiplied by it.
template <class F, int R>
OUTRIDER_ALWAYS_INLINE void weighted_sums(const std::byte* w, const std::byte* low, const std::byte* block_scales,
                                          const std::int8_t* x, const RowScale* row, __m512i (&sums)[R]) {
    if constexpr (F::kHalves) {
        const auto* halves = reinterpret_cast<const __m128i*>(block_scales);
        __m512i high[R];
        start<F, R>(row, true, false, sums);
        block_sums<F, R, 0, 4>(w, low, x, sums);
        start<F, R>(row, false, true, high);
        block_sums<F, R, 4, 8>(w, low, x, high);
        const __m512i first = _mm512_cvtepi8_epi32(_mm_load_si128(halves));
        const __m512i second = _mm512_cvtepi8_epi32(_mm_load_si128(halves + 1));
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            sums[r] = _mm512_add_epi32(_mm512_mullo_epi32(sums[r], first), _mm512_mullo_epi32(high[r], second));
    } else {
        start<F, R>(row, true, true, sums);
        block_sums<F, R, 0, 8>(w, low, x, sums);
    }
}

OUTRIDER_ALWAYS_INLINE __m512 small_integers(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p))));
}

// The factor d and the minimum m of 16 outputs.
template <class F>
OUTRIDER_ALWAYS_INLINE void load_scales(const std::byte* super, const std::byte* block, __m512& d, __m512& m) {
    if constexpr (F::kHalves) {
        d = load_halves(super);
    } else if constexpr (F::kSuper) {
        d = _mm512_mul_ps(load_halves(super), small_integers(block));
        m = _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(load_halves(super + 32), small_integers(block + 16)));
    } else {
        d = load_halves(block);
        if constexpr (F::kMinimum) m = load_halves(block + 32);
    }
}

template <class F, int R>
void tile(const TileArgs& t) {
    __m512 acc[R];
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
    auto [values, scales] = streams_of<F>(t.panel, t.blocks);
    const std::byte* low = t.low;
    const std::int8_t* x = t.bytes;
    const RowScale* row = t.scales;
    for (std::int64_t b = 0; b < t.blocks; ++b) {
        prefetch_block<F>(t.panel, t.low_ahead + b * kLowStep, b);
        const std::byte* super = scales + b / 8 * F::kSuperBytes;
        const std::byte* block = F::kSuper ? super + (F::kHalves ? 32 : 64) + b % 8 * 32 : scales + b * F::kScaleBytes;
        __m512i sums[R];
        weighted_sums<F, R>(values, low, block, x, row, sums);
        __m512 d, m = _mm512_setzero_ps();
        load_scales<F>(super, block, d, m);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r)
            acc[r] =
                _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[r]), _mm512_set1_ps(row[r].scale)), d, acc[r]);
        if constexpr (F::kMinimum) {
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) acc[r] = _mm512_fmadd_ps(m, _mm512_set1_ps(row[r].sum), acc[r]);
        }
        values += F::kStepBytes, low += kLowStep, x += 32 * t.group, row += t.group;
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

// What is read ahead of its use: the high plane and the scales as one stream, and of each block that is read in both
// planes the low one of a later panel.
OUTRIDER_ALWAYS_INLINE void prefetch_bound(const BoundArgs& a, const std::byte* panel, const std::byte* low,
                                           std::int64_t b) {
    constexpr int kBytes = Q8P::kStepBytes + Q8P::kScaleBytes;
    const std::byte* ahead = panel + kPrefetchBytes + b * kBytes;
    OUTRIDER_UNROLL
    for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(ahead + i);
    if (a.both[b] == 0) return;
    OUTRIDER_UNROLL
    for (int i = 0; i < Q8P::kStepBytes; i += 64) __builtin_prefetch(low + i);
}

// Estimates of 16 outputs for R rows from what is read of their panel, and how far off they may be over rho.
template <int R>
OUTRIDER_ALWAYS_INLINE void estimate(const BoundArgs& a, const std::byte* panel, const std::byte* low,
                                     const std::byte* low_ahead, __m512 (&sum)[R], __m512 (&off)[R]) {
    auto [values, scales] = streams_of<Q8P>(panel, a.blocks);
    const std::int8_t* x = a.bytes;
    const RowScale* row = a.scales;
    const float* norms = a.norms;
    OUTRIDER_UNROLL
    for (int r = 0; r < R; ++r) sum[r] = off[r] = _mm512_setzero_ps();
    for (std::int64_t b = 0; b < a.blocks; ++b) {
        prefetch_bound(a, panel, low_ahead + b * kLowStep, b);
        __m512i sums[R];
        __m512 scale[R];
        if (a.both[b] != 0) {
            start<Q8P, R>(row, true, true, sums);
            block_sums<Q8P, R, 0, 8>(values, low, x, sums);
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) scale[r] = _mm512_set1_ps(row[r].scale);
        } else {
            // 16 high + 7.5 - 128 in halves.
            start<Q41, R>(row, true, true, sums);
            block_sums<Q41, R, 0, 8>(values, nullptr, x, sums);
            OUTRIDER_UNROLL
            for (int r = 0; r < R; ++r) {
                sums[r] = _mm512_add_epi32(_mm512_slli_epi32(sums[r], 5), _mm512_set1_epi32(241 * row[r].minus_all));
                scale[r] = _mm512_set1_ps(0.5F * row[r].scale);
            }
        }
        const __m512 d = load_halves(scales);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            sum[r] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[r]), scale[r]), d, sum[r]);
            off[r] = _mm512_fmadd_ps(_mm512_abs_ps(d), _mm512_set1_ps(norms[r]), off[r]);
        }
        values += Q8P::kStepBytes, low += kLowStep, scales += Q8P::kScaleBytes;
        x += 32 * R, row += R, norms += R;
    }
}

template <int R>
void bound_rows(const BoundArgs& a) {
    constexpr std::int64_t kAhead = 4;
    for (std::int64_t panel = a.begin; panel < a.end; ++panel) {
        const std::byte* at = a.panels + panel * a.panel_bytes;
        __m512 sum[R], off[R];
        estimate<R>(a, at, a.low + low_at(panel, a.blocks), a.low + low_at(panel + kAhead, a.blocks), sum, off);
        const __m512 rho = _mm512_load_ps(at);
        const auto there = static_cast<__mmask16>((1U << std::min(kPanel, a.out - panel * kPanel)) - 1);
        OUTRIDER_UNROLL
        for (int r = 0; r < R; ++r) {
            const __m512 upper = _mm512_fmadd_ps(rho, off[r], sum[r]);
            const __mmask16 broken = _mm512_mask_cmp_ps_mask(there, upper, upper, _CMP_UNORD_Q);
            float& most = a.uppers[(panel - a.begin) * R + r];
            most = broken != 0 ? HUGE_VALF : _mm512_mask_reduce_max_ps(there, upper);
            const __mmask16 numbers = _mm512_mask_cmp_ps_mask(there, sum[r], sum[r], _CMP_ORD_Q);
            const float estimated = numbers != 0 ? _mm512_mask_reduce_max_ps(numbers, sum[r]) : -HUGE_VALF;
            if (numbers != 0 && (a.best_panel[r] < 0 || estimated > a.best[r]))
                a.best[r] = estimated, a.best_panel[r] = panel;
        }
    }
}

void bound(const BoundArgs& args) {
    static_assert(kChoiceRows == 4);
    constexpr std::array<void (*)(const BoundArgs&), kChoiceRows> kBounds{bound_rows<1>, bound_rows<2>, bound_rows<3>,
                                                                          bound_rows<4>};
    kBounds[static_cast<std::size_t>(args.rows - 1)](args);
}

}  // namespace

IntegerKernels vnni_integer_kernels() {
    IntegerKernels kernels = OUTRIDER_INTEGER_KERNELS(multiply);
    kernels.bound = bound;
    return kernels;
}

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
