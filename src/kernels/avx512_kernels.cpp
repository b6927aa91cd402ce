// AVX-512 (F, BW, DQ, VL): floats of 512 bits. The integer products are those of the AVX2 path.
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc bug 105593, in its own header
#endif
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernel_table.hpp"
#include "quantise.hpp"
#include "target.hpp"
#include "walk.hpp"

OUTRIDER_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#include <outrider/core/detail/exponential.hpp>  // compiled for this path

namespace outrider::kernels {
namespace {

constexpr int kFloatTile = 12;
constexpr std::int64_t kPrefetchBytes = 3072;
constexpr int kScoreTile = 12;                // queries whose scores of one or two panels stay in registers
constexpr int kMixTile = 6, kMixVectors = 4;  // queries and vectors of a head whose sums do

struct Vec {
    static constexpr int kLanes = 16;
    __m512 v;

    static OUTRIDER_ALWAYS_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
    static OUTRIDER_ALWAYS_INLINE Vec set1(float x) { return {_mm512_set1_ps(x)}; }
    static OUTRIDER_ALWAYS_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
    OUTRIDER_ALWAYS_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
    static OUTRIDER_ALWAYS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec even(const std::uint32_t* p) {
        return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec odd(const std::uint32_t* p) {
        const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
        return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), high))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec broadcast_here(const float* p) { return set1(*p); }  // 32 registers suffice
    friend OUTRIDER_ALWAYS_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec round(Vec x) { return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT)}; }
    static OUTRIDER_ALWAYS_INLINE Vec power_of_two(Vec n) {
        const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec load_f16(const std::uint16_t* p) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec load_bf16(const std::uint16_t* p) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
    }
    static OUTRIDER_ALWAYS_INLINE bool any_equal(Vec a, float x) {
        return _mm512_cmp_ps_mask(a.v, _mm512_set1_ps(x), _CMP_EQ_OQ) != 0;
    }
    static OUTRIDER_ALWAYS_INLINE Vec zero_below(Vec x, float limit, Vec value) {
        return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ), value.v)};
    }
};

#include "float_body.inl"
#include "row_body.inl"
#include "attention_body.inl"

void quantise_row(const float* x, std::int64_t blocks, std::int8_t* q, std::int64_t q_stride, RowScale* scales,
                  std::int64_t scale_stride) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (std::int64_t b = 0; b < blocks; ++b, x += 32, q += q_stride, scales += scale_stride) {
        const __m512 first = _mm512_loadu_ps(x), second = _mm512_loadu_ps(x + 16);
        const BlockQuantiser by = block_quantiser(
            _mm512_reduce_max_epi32(_mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(first), magnitude),
                                                     _mm512_and_si512(_mm512_castps_si512(second), magnitude))));
        const __m512 inverse = _mm512_set1_ps(by.inverse);
        // Where the block holds NaN or infinity the inverse is 0 and the products may be NaN: clear them.
        const __mmask16 keep = by.inverse == 0.0F ? 0 : 0xffff;
        const __m128i low = _mm512_cvtepi32_epi8(_mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(first, inverse)));
        const __m128i high = _mm512_cvtepi32_epi8(_mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(second, inverse)));
        const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(q), bytes);
        __m256i sums = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
        sums = _mm256_hadd_epi32(sums, sums);
        sums = _mm256_hadd_epi32(sums, sums);  // of each half's 16, in all its lanes
        const std::int32_t of_low = _mm256_extract_epi32(sums, 0), all = of_low + _mm256_extract_epi32(sums, 4);
        *scales = {by.scale, by.scale * static_cast<float>(all), -all, -of_low};
    }
}

}  // namespace

const Table& avx512_table() {
    static const Table kTable = [] {
        Table t = avx2_table();
        t.isa = Isa::avx512;
        t.multiply = multiplies(multiply_f32, multiply_bf16, avx2_integer_kernels());
        OUTRIDER_ROW_KERNELS(t);
        t.quantise_row = quantise_row;
        return t;
    }();
    return kTable;
}

const Table& vnni_table() {
    static const Table kTable = [] {
        Table t = avx512_table();
        t.isa = Isa::vnni;
        const IntegerKernels integers = vnni_integer_kernels();
        t.multiply = multiplies(multiply_f32, multiply_bf16, integers), t.bound = integers.bound;
        return t;
    }();
    return kTable;
}

}  // namespace outrider::kernels
OUTRIDER_TARGET_END
#endif
