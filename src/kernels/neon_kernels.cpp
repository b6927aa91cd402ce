// 64-bit Arm: Advanced SIMD, with its integer dot products where the machine has them.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#include <outrider/core/detail/exponential.hpp>

#include "half.hpp"
#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "quantise.hpp"
#include "target.hpp"
#include "walk.hpp"

namespace outrider::kernels {
namespace plain {
namespace {
#define OUTRIDER_NEON_DOT 0
#include "neon_integer.inl"
#undef OUTRIDER_NEON_DOT
}  // namespace
}  // namespace plain
}  // namespace outrider::kernels

OUTRIDER_TARGET_BEGIN("arch=armv8.2-a+dotprod")
namespace outrider::kernels {
namespace dot {
namespace {
#define OUTRIDER_NEON_DOT 1
#include "neon_integer.inl"
#undef OUTRIDER_NEON_DOT
}  // namespace
}  // namespace dot
}  // namespace outrider::kernels
OUTRIDER_TARGET_END

namespace outrider::kernels {
namespace {

constexpr int kFloatTile = 6;  // 24 accumulators of 32 registers
constexpr std::int64_t kPrefetchBytes = 2048;
constexpr int kScoreTile = 5;                 // queries whose scores of one or two panels stay in registers
constexpr int kMixTile = 5, kMixVectors = 4;  // queries and vectors of a head whose sums do

struct Vec {
    static constexpr int kLanes = 4;
    float32x4_t v;

    static OUTRIDER_ALWAYS_INLINE Vec zero() { return {vdupq_n_f32(0)}; }
    static OUTRIDER_ALWAYS_INLINE Vec set1(float x) { return {vdupq_n_f32(x)}; }
    static OUTRIDER_ALWAYS_INLINE Vec broadcast_here(const float* p) { return {vld1q_dup_f32(p)}; }
    static OUTRIDER_ALWAYS_INLINE Vec load(const float* p) { return {vld1q_f32(p)}; }
    OUTRIDER_ALWAYS_INLINE void store(float* p) const { vst1q_f32(p, v); }
    static OUTRIDER_ALWAYS_INLINE Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec even(const std::uint32_t* p) {
        return {vreinterpretq_f32_u32(vshlq_n_u32(vld1q_u32(p), 16))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec odd(const std::uint32_t* p) {
        return {vreinterpretq_f32_u32(vandq_u32(vld1q_u32(p), vdupq_n_u32(0xffff0000U)))};
    }
    friend OUTRIDER_ALWAYS_INLINE Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
    friend OUTRIDER_ALWAYS_INLINE Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
    // b where either is NaN, as on the other paths.
    static OUTRIDER_ALWAYS_INLINE Vec max(Vec a, Vec b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec min(Vec a, Vec b) { return {vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec round(Vec x) { return {vrndnq_f32(x.v)}; }
    static OUTRIDER_ALWAYS_INLINE Vec power_of_two(Vec n) {
        return {vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtnq_s32_f32(n.v), vdupq_n_s32(127)), 23))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec zero_below(Vec x, float limit, Vec value) {
        return {vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value.v), vcltq_f32(x.v, vdupq_n_f32(limit))))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec load_f16(const std::uint16_t* p) {
        return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)))};
    }
    static OUTRIDER_ALWAYS_INLINE Vec load_bf16(const std::uint16_t* p) {
        return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16))};
    }
    static OUTRIDER_ALWAYS_INLINE bool any_equal(Vec a, float x) {
        return vmaxvq_u32(vceqq_f32(a.v, vdupq_n_f32(x))) != 0;
    }
};

#include "float_body.inl"
#include "row_body.inl"
#include "attention_body.inl"

void quantise_row(const float* x, std::int64_t blocks, std::int8_t* q, std::int64_t q_stride, RowScale* scales,
                  std::int64_t scale_stride) {
    for (std::int64_t b = 0; b < blocks; ++b, x += 32, q += q_stride, scales += scale_stride) {
        int32x4_t most = vdupq_n_s32(0);
        for (int i = 0; i < 8; ++i)
            most = vmaxq_s32(most, vandq_s32(vreinterpretq_s32_f32(vld1q_f32(x + 4 * i)), vdupq_n_s32(0x7fffffff)));
        const BlockQuantiser by = block_quantiser(vmaxvq_s32(most));
        const int32x4_t keep = vdupq_n_s32(by.inverse == 0.0F ? 0 : -1);
        std::int32_t sums[2] = {};
        for (int i = 0; i < 4; ++i) {
            const auto integers = [&](int at) {
                return vandq_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + at), by.inverse)), keep);
            };
            const int32x4_t first = integers(8 * i), second = integers(8 * i + 4);
            vst1_s8(q + 8 * i, vmovn_s16(vcombine_s16(vmovn_s32(first), vmovn_s32(second))));
            sums[i / 2] += vaddvq_s32(vaddq_s32(first, second));
        }
        const std::int32_t all = sums[0] + sums[1];
        *scales = {by.scale, by.scale * static_cast<float>(all), -all, -sums[0]};
    }
}

void to_halves(CacheFormat format, const float* x, std::int64_t n, std::uint16_t* halves) {
    std::int64_t i = 0;
    if (format == CacheFormat::f16) {
        for (; i + 4 <= n; i += 4) vst1_u16(halves + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
        for (; i < n; ++i) halves[i] = float_to_half(x[i]);
    }
    for (; i < n; ++i) halves[i] = float_to_bfloat16(x[i]);
}

bool has_dot_products() {
#if defined(__linux__) && defined(HWCAP_ASIMDDP)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
    return true;
#else
    return false;
#endif
}

IntegerKernels integer_kernels() {
    if (has_dot_products()) {
        using namespace dot;
        return OUTRIDER_INTEGER_KERNELS(multiply);
    }
    using namespace plain;
    return OUTRIDER_INTEGER_KERNELS(multiply);
}

}  // namespace

const Table& neon_table() {
    static const Table kTable = [] {
        Table t{.isa = Isa::neon, .multiply = multiplies(multiply_f32, multiply_bf16, integer_kernels())};
        t.quantise_row = quantise_row, t.to_halves = to_halves;
        OUTRIDER_ROW_KERNELS(t);
        return t;
    }();
    return kTable;
}

}  // namespace outrider::kernels
#endif
