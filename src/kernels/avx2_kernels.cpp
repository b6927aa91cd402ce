// AVX2 with FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "half.hpp"
#include "kernel_table.hpp"
#include "quantise.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx2,fma,f16c")
#include <outrider/core/detail/exponential.hpp>  // compiled for this path

namespace outrider::kernels {
namespace {

constexpr int kFloatTile = 6;  // 12 accumulators, 2 weights, 1 value: 15 of 16 registers
constexpr std::int64_t kPrefetchBytes = 3072;
constexpr int kScoreTile = 6;                 // queries whose scores of one or two panels stay in registers
constexpr int kMixTile = 6, kMixVectors = 2;  // queries and vectors of a head whose sums do

struct Vec {
    static constexpr int kLanes = 8;
    __m256 v;

    static OUTRIDER_ALWAYS_INLINE Vec zero() { return {_mm256_setzero_ps()}; }
    static OUTRIDER_ALWAYS_INLINE Vec set1(float x) { return {_mm256_set1_ps(x)}; }
    static OUTRIDER_ALWAYS_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
    OUTRIDER_ALWAYS_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
    static OUTRIDER_ALWAYS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec even(const std::uint32_t* p) {
        return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), 16))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec odd(const std::uint32_t* p) {
        // Two shifts, not a mask: every register holds an accumulator.
        const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(pair, 16), 16))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec broadcast_here(const float* p) {
        Vec result;
        asm volatile("vbroadcastss %1, %0" : "=x"(result.v) : "m"(*p));
        return result;
    }
    friend OUTRIDER_ALWAYS_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec round(Vec x) {
        return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    }
    static OUTRIDER_ALWAYS_INLINE Vec power_of_two(Vec n) {
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec load_f16(const std::uint16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec load_bf16(const std::uint16_t* p) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
    }
    static OUTRIDER_ALWAYS_INLINE bool any_equal(Vec a, float x) {
        return _mm256_movemask_ps(_mm256_cmp_ps(a.v, _mm256_set1_ps(x), _CMP_EQ_OQ)) != 0;
    }
    static OUTRIDER_ALWAYS_INLINE Vec zero_below(Vec x, float limit, Vec value) {
        return {_mm256_andnot_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(limit), _CMP_LT_OQ), value.v)};
    }
};

#include "float_body.inl"
#include "row_body.inl"
#include "attention_body.inl"

OUTRIDER_ALWAYS_INLINE std::int32_t reduce_add(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

void quantise_row(const float* x, std::int64_t blocks, std::int8_t* q, std::int64_t q_stride, RowScale* scales,
                  std::int64_t scale_stride) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    const __m128i ones8 = _mm_set1_epi8(1), ones16 = _mm_set1_epi16(1);
    for (std::int64_t b = 0; b < blocks; ++b, x += 32, q += q_stride, scales += scale_stride) {
        __m256 v[4];
        for (int i = 0; i < 4; ++i) v[i] = _mm256_loadu_ps(x + 8 * i);
        __m256i m[4];
        for (int i = 0; i < 4; ++i) m[i] = _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude);
        const __m256i most = _mm256_max_epi32(_mm256_max_epi32(m[0], m[1]), _mm256_max_epi32(m[2], m[3]));
        __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
        half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
        const BlockQuantiser by = block_quantiser(_mm_cvtsi128_si32(half));
        const __m256 inverse = _mm256_set1_ps(by.inverse);
        // Where the block holds NaN or infinity the inverse is 0 and the products may be NaN: clear them.
        const __m256i keep = _mm256_set1_epi32(by.inverse == 0.0F ? 0 : -1);
        __m256i n[4];
        for (int i = 0; i < 4; ++i) n[i] = _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse)), keep);
        const __m256i words0 = _mm256_permute4x64_epi64(_mm256_packs_epi32(n[0], n[1]), 0xd8);
        const __m256i words1 = _mm256_permute4x64_epi64(_mm256_packs_epi32(n[2], n[3]), 0xd8);
        const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(words0, words1), 0xd8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), bytes);
        const __m128i low4 = _mm_madd_epi16(_mm_maddubs_epi16(ones8, _mm256_castsi256_si128(bytes)), ones16);
        const __m128i high4 = _mm_madd_epi16(_mm_maddubs_epi16(ones8, _mm256_extracti128_si256(bytes, 1)), ones16);
        const std::int32_t low = reduce_add(low4), all = low + reduce_add(high4);
        *scales = {by.scale, by.scale * static_cast<float>(all), -all, -low};
    }
}

void to_halves(CacheFormat format, const float* x, std::int64_t n, std::uint16_t* halves) {
    std::int64_t i = 0;
    if (format == CacheFormat::f16) {
        for (; i + 8 <= n; i += 8)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + i),
                             _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        for (; i < n; ++i) halves[i] = float_to_half(x[i]);
    }
    for (; i < n; ++i) halves[i] = float_to_bfloat16(x[i]);
}

}  // namespace

const Table& avx2_table() {
    static const Table kTable = [] {
        Table t{.isa = Isa::avx2, .multiply = multiplies(multiply_f32, multiply_bf16, avx2_integer_kernels())};
        t.quantise_row = quantise_row, t.to_halves = to_halves;
        OUTRIDER_ROW_KERNELS(t);
        return t;
    }();
    return kTable;
}

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
