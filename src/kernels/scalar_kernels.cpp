// The portable path: plain loops that any compiler can vectorise for its baseline.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include <outrider/core/detail/exponential.hpp>

#include "half.hpp"
#include "kernel_table.hpp"
#include "quantise.hpp"
#include "target.hpp"
#include "walk.hpp"

namespace outrider::kernels {
namespace {

constexpr int kFloatTile = 4;
constexpr std::int64_t kPrefetchBytes = 2048;
constexpr int kScoreTile = 4;                 // queries whose scores of one or two panels stay in registers
constexpr int kMixTile = 2, kMixVectors = 2;  // queries and vectors of a head whose sums do

struct Vec {
    static constexpr int kLanes = 4;
    float v[4];

    static Vec zero() { return {{0, 0, 0, 0}}; }
    static Vec set1(float x) { return {{x, x, x, x}}; }
    static Vec load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
    void store(float* p) const {
        for (int i = 0; i < kLanes; ++i) p[i] = v[i];
    }
    // Not fused: a fused one is a library call on machines without the instruction.
    static Vec fma(const Vec& a, const Vec& b, const Vec& c) {
        Vec r;
        for (int i = 0; i < kLanes; ++i) r.v[i] = a.v[i] * b.v[i] + c.v[i];
        return r;
    }
    static Vec even(const std::uint32_t* p) {
        Vec r;
        for (int i = 0; i < kLanes; ++i) r.v[i] = __builtin_bit_cast(float, p[i] << 16);
        return r;
    }
    static Vec odd(const std::uint32_t* p) {
        Vec r;
        for (int i = 0; i < kLanes; ++i) r.v[i] = __builtin_bit_cast(float, p[i] & 0xffff0000U);
        return r;
    }
    static Vec broadcast_here(const float* p) { return set1(*p); }
    static Vec load_f16(const std::uint16_t* p) {
        return {{half_to_float(p[0]), half_to_float(p[1]), half_to_float(p[2]), half_to_float(p[3])}};
    }
    static Vec load_bf16(const std::uint16_t* p) {
        Vec r;
        for (int i = 0; i < kLanes; ++i) r.v[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(p[i]) << 16);
        return r;
    }
    static bool any_equal(const Vec& a, float x) { return a.v[0] == x || a.v[1] == x || a.v[2] == x || a.v[3] == x; }
    template <typename F>
    static Vec each(const Vec& a, const Vec& b, F f) {
        Vec r;
        for (int i = 0; i < kLanes; ++i) r.v[i] = f(a.v[i], b.v[i]);
        return r;
    }
    friend Vec operator+(const Vec& a, const Vec& b) {
        return each(a, b, [](float x, float y) { return x + y; });
    }
    friend Vec operator-(const Vec& a, const Vec& b) {
        return each(a, b, [](float x, float y) { return x - y; });
    }
    friend Vec operator*(const Vec& a, const Vec& b) {
        return each(a, b, [](float x, float y) { return x * y; });
    }
    friend Vec operator/(const Vec& a, const Vec& b) {
        return each(a, b, [](float x, float y) { return x / y; });
    }
    // b where either is NaN, as the vector instructions do.
    static Vec max(const Vec& a, const Vec& b) {
        return each(a, b, [](float x, float y) { return x > y ? x : y; });
    }
    static Vec min(const Vec& a, const Vec& b) {
        return each(a, b, [](float x, float y) { return x < y ? x : y; });
    }
    // To the nearest integer, ties to even; |x| < 2^22.
    static Vec round(const Vec& x) { return (x + set1(12582912.0F)) - set1(12582912.0F); }
    static Vec power_of_two(const Vec& n) {
        Vec r;
        for (int i = 0; i < kLanes; ++i)
            r.v[i] =
                n.v[i] == n.v[i] ? __builtin_bit_cast(float, (static_cast<std::int32_t>(n.v[i]) + 127) << 23) : n.v[i];
        return r;
    }
    static Vec zero_below(const Vec& x, float limit, const Vec& value) {
        return each(x, value, [limit](float a, float b) { return a < limit ? 0.0F : b; });
    }
};

#include "float_body.inl"
#include "row_body.inl"
#include "attention_body.inl"

void quantise_row(const float* x, std::int64_t blocks, std::int8_t* q, std::int64_t q_stride, RowScale* scales,
                  std::int64_t scale_stride) {
    for (std::int64_t b = 0; b < blocks; ++b, x += 32, q += q_stride, scales += scale_stride) {
        std::int32_t bits = 0;
        for (int i = 0; i < 32; ++i) bits = std::max(bits, __builtin_bit_cast(std::int32_t, x[i]) & 0x7fffffff);
        const BlockQuantiser by = block_quantiser(bits);
        std::int32_t low = 0, high = 0;
        for (int i = 0; i < 32; ++i) {
            const float scaled = by.inverse == 0.0F ? 0.0F : x[i] * by.inverse;
            q[i] = static_cast<std::int8_t>((scaled + 12582912.0F) - 12582912.0F);
            (i < 16 ? low : high) += q[i];
        }
        *scales = {by.scale, by.scale * static_cast<float>(low + high), -(low + high), -low};
    }
}

void to_halves(CacheFormat format, const float* x, std::int64_t n, std::uint16_t* halves) {
    if (format == CacheFormat::f16)
        for (std::int64_t i = 0; i < n; ++i) halves[i] = float_to_half(x[i]);
    else
        for (std::int64_t i = 0; i < n; ++i) halves[i] = float_to_bfloat16(x[i]);
}

}  // namespace

const Table& scalar_table() {
    static const Table kTable = [] {
        Table t{.isa = Isa::scalar, .multiply = multiplies(multiply_f32, multiply_bf16, scalar_integer_kernels())};
        t.quantise_row = quantise_row, t.to_halves = to_halves;
        OUTRIDER_ROW_KERNELS(t);
        return t;
    }();
    return kTable;
}

}  // namespace outrider::kernels
