// What the kernel tests share: seeded values, random blocks of every format, their meaning in doubles.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include "kernels/isa.hpp"
#include "kernels/packed_linear.hpp"

namespace outrider::testing {

class Draws {
public:
    explicit Draws(std::uint64_t seed) : key_(seed, 0, 0) {}
    double uniform() { return key_.uniform(next_++); }
    std::int64_t below(std::int64_t n) { return static_cast<std::int64_t>(uniform() * static_cast<double>(n)); }
    float normal() {
        const double u = uniform(), v = uniform();
        return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
    }
    std::vector<float> normals(std::int64_t n) {
        std::vector<float> result(static_cast<std::size_t>(n));
        for (float& x : result) x = normal();
        return result;
    }

private:
    RandomKey key_;
    std::uint64_t next_ = 0;
};

/// The half-precision number nearest to x, for |x| in [2^-14, 65504).
inline std::uint16_t half(double x) {
    if (x == 0) return 0;
    int exponent = 0;
    const double fraction = std::frexp(std::abs(x), &exponent);          // [0.5, 1)
    const int mantissa = static_cast<int>(std::lrint(fraction * 2048));  // [1024, 2048]
    return static_cast<std::uint16_t>((x < 0 ? 0x8000 : 0) + ((exponent + 14) << 10) + mantissa - 1024);
}

inline double from_half(std::uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
    return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// A matrix packed for multiply, and its weights in doubles.
struct TestMatrix {
    PackedLinear packed;
    std::vector<double> weights;  // [out, in]
};

/// Where a block of `format` keeps its half-precision d and m (-1: none).
inline std::pair<int, int> scale_places(WeightFormat format) {
    switch (format) {
        case WeightFormat::q4_1:
        case WeightFormat::q5_1:
        case WeightFormat::q4_k:
        case WeightFormat::q5_k: return {0, 2};
        case WeightFormat::q6_k: return {208, -1};
        default: return {0, -1};
    }
}

inline bool is_k(WeightFormat format) { return block_shape(format).values == 256; }

/// Whether a file holds such weights as q8_0.
inline bool is_bytes(WeightFormat format) { return format == WeightFormat::q8_0 || format == WeightFormat::q8_planes; }

/// Random ggml blocks: random integers, random scales; when `exact`, scale 1 and a small integer minimum.
inline std::vector<std::byte> random_blocks(WeightFormat format, std::int64_t blocks, Draws& draws, bool exact) {
    const BlockShape shape = block_shape(format);
    const auto [d_at, m_at] = scale_places(format);
    std::vector<std::byte> bytes(static_cast<std::size_t>(blocks * shape.bytes));
    for (std::byte& b : bytes) b = static_cast<std::byte>(draws.below(256));
    for (std::int64_t b = 0; b < blocks; ++b) {
        std::byte* block = bytes.data() + b * shape.bytes;
        const std::uint16_t d = half(exact ? 1.0 : 0.01 + 0.1 * draws.uniform());
        std::memcpy(block + d_at, &d, 2);
        if (m_at >= 0) {
            const double m = exact ? 8.0 : 0.8 * draws.uniform();
            const std::uint16_t minimum = half(is_k(format) ? m / 8 : -m);  // k formats subtract it, times 0 to 63
            std::memcpy(block + m_at, &minimum, 2);
        }
        for (std::int64_t i = 2; i < shape.bytes; ++i)  // ggml never stores -128
            if (is_bytes(format) && block[i] == std::byte{0x80}) block[i] = std::byte{0x81};
        for (std::int64_t i = 4; exact && (format == WeightFormat::q4_k || format == WeightFormat::q5_k) && i < 16; ++i)
            block[i] &= std::byte{0x07};  // scales and minima up to 7, so that exact sums fit a float
        for (std::int64_t i = 192; exact && format == WeightFormat::q6_k && i < 208; ++i)
            block[i] = static_cast<std::byte>(draws.below(7) - 3);
    }
    return bytes;
}

/// The 32 values of an old-style block, by the format's definition (ggml-quants).
inline void block_meaning(WeightFormat format, const std::byte* block, std::vector<double>& values) {
    const auto [d_at, m_at] = scale_places(format);
    std::uint16_t d = 0, m = 0;
    std::uint32_t fifth = 0;
    std::memcpy(&d, block + d_at, 2);
    if (m_at >= 0) std::memcpy(&m, block + m_at, 2);
    const std::byte* q = block + (m_at >= 0 ? 4 : 2);
    const bool five = format == WeightFormat::q5_0 || format == WeightFormat::q5_1;
    if (five) std::memcpy(&fifth, q, 4), q += 4;
    for (int i = 0; i < 32; ++i) {
        if (is_bytes(format)) {
            values.push_back(from_half(d) * static_cast<std::int8_t>(q[i]));
            continue;
        }
        const auto pair = std::to_integer<int>(q[i % 16]);
        const int stored = (i < 16 ? pair & 15 : pair >> 4) + static_cast<int>(fifth >> i & 1) * 16;
        values.push_back(m_at >= 0 ? from_half(d) * stored + from_half(m) : from_half(d) * (stored - (five ? 16 : 8)));
    }
}

/// The 256 values of a k block.
inline void k_block_meaning(WeightFormat format, const std::byte* block, std::vector<double>& values) {
    const auto [d_at, m_at] = scale_places(format);
    std::uint16_t half_d = 0, half_m = 0;
    std::memcpy(&half_d, block + d_at, 2);
    if (m_at >= 0) std::memcpy(&half_m, block + m_at, 2);
    const auto byte = [&](int i) { return std::to_integer<int>(block[i]); };
    for (int i = 0; i < 256; ++i) {
        const int chunk = i / 32, l = i % 32;
        if (format == WeightFormat::q6_k) {
            const int part = i / 128, quarter = i % 128 / 32;
            const int low = byte(64 * part + l + 32 * (quarter % 2)) >> 4 * (quarter / 2) & 15;
            const int high = byte(128 + 32 * part + l) >> 2 * quarter & 3;
            values.push_back(from_half(half_d) * static_cast<std::int8_t>(block[192 + i / 16]) *
                             (low + 16 * high - 32));
            continue;
        }
        const int scale = chunk < 4 ? byte(4 + chunk) & 63 : (byte(8 + chunk) & 15) | byte(chunk) >> 6 << 4;
        const int minimum = chunk < 4 ? byte(8 + chunk) & 63 : byte(8 + chunk) >> 4 | byte(4 + chunk) >> 6 << 4;
        int stored = byte((format == WeightFormat::q5_k ? 48 : 16) + chunk / 2 * 32 + l) >> 4 * (chunk % 2) & 15;
        if (format == WeightFormat::q5_k) stored += (byte(16 + l) >> chunk & 1) * 16;
        values.push_back(from_half(half_d) * scale * stored - from_half(half_m) * minimum);
    }
}

/// What a file's blocks mean.
inline std::vector<double> meaning(WeightFormat format, std::span<const std::byte> bytes) {
    const BlockShape shape = block_shape(format);
    std::vector<double> result;
    for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(shape.bytes)) {
        if (is_k(format))
            k_block_meaning(format, bytes.data() + at, result);
        else
            block_meaning(format, bytes.data() + at, result);
    }
    return result;
}

/// What int8 holds: multiples of largest / 127 (in half precision) of each 32 weights of a row.
inline void round_to_int8(std::vector<double>& weights, std::int64_t in) {
    for (std::size_t row = 0; row < weights.size(); row += static_cast<std::size_t>(in))
        for (std::int64_t b = 0; b < in; b += 32) {
            const auto block = std::span(weights).subspan(row + static_cast<std::size_t>(b),
                                                          static_cast<std::size_t>(std::min<std::int64_t>(32, in - b)));
            double largest = 0;
            for (const double w : block) largest = std::max(largest, std::abs(w));
            const double scale = from_half(half(static_cast<float>(largest) / 127.0F));
            const float inverse = 1.0F / static_cast<float>(scale);
            for (double& w : block)
                w = scale *
                    static_cast<double>(std::lrint(std::clamp(static_cast<float>(w) * inverse, -127.0F, 127.0F)));
        }
}

/// What q4_1 and q5_1 of floats hold: m + d q, from the least to the largest of each 32 weights of a row.
inline void round_between(std::vector<double>& weights, std::int64_t in, float steps) {
    for (std::size_t row = 0; row < weights.size(); row += static_cast<std::size_t>(in))
        for (std::int64_t b = 0; b < in; b += 32) {
            const auto block = std::span(weights).subspan(row + static_cast<std::size_t>(b),
                                                          static_cast<std::size_t>(std::min<std::int64_t>(32, in - b)));
            const auto [least, largest] = std::ranges::minmax(block);
            const double d = from_half(half((static_cast<float>(largest) - static_cast<float>(least)) / steps)),
                         m = from_half(half(static_cast<float>(least)));
            for (double& w : block)
                w = m + (d > 0 ? d * std::clamp(std::nearbyint((w - m) / d), 0.0, static_cast<double>(steps)) : 0.0);
        }
}

inline bool made_from_floats(WeightFormat format) {
    return format == WeightFormat::f32 || format == WeightFormat::bf16 || format == WeightFormat::int8;
}

inline TestMatrix random_matrix(WeightFormat format, std::int64_t out, std::int64_t in, std::uint64_t seed,
                                bool exact = false) {
    Draws draws(seed);
    if (made_from_floats(format)) {
        std::vector<float> weights = draws.normals(out * in);
        if (exact)
            for (float& w : weights) w = static_cast<float>(draws.below(255) - 127);
        if (exact)
            for (std::int64_t i = 0; i < out * in; ++i)
                if (i % in % 32 == 0) weights[static_cast<std::size_t>(i)] = 127;  // scale 1
        if (format == WeightFormat::bf16)
            for (float& w : weights) w = std::bit_cast<float>(std::bit_cast<std::uint32_t>(w) & 0xffff0000U);
        TestMatrix result{PackedLinear::pack(format, weights, out, in), {weights.begin(), weights.end()}};
        if (format == WeightFormat::int8) round_to_int8(result.weights, in);
        return result;
    }
    const auto bytes = random_blocks(format, out * in / block_shape(format).values, draws, exact);
    return {PackedLinear::pack_blocks(format, bytes, out, in), meaning(format, bytes)};
}

/// Row `row`, value k as the packed rows hold it.
inline double packed_value(const PackedRows& rows, std::int64_t row, std::int64_t k) {
    const std::int64_t most = PackedRows::group_rows(rows.form()), first = row / most * most, r = row - first;
    const std::int64_t group = std::min(most, rows.rows() - first), in = rows.padded_in();
    if (rows.form() == RowForm::f32) return rows.floats()[first * in + k * group + r];
    if (rows.form() == RowForm::bf16) {
        const std::uint32_t pair = rows.pairs()[first * in / 2 + (k / 32 * group + r) * 16 + k % 32 / 2];
        return std::bit_cast<float>(k % 2 == 0 ? pair << 16 : pair & 0xffff0000U);
    }
    const std::int64_t b = k / 32;
    return static_cast<double>(rows.bytes()[first * in + (b * group + r) * 32 + k % 32]) *
           rows.scales()[first * in / 32 + b * group + r].scale;
}

/// y [n, out] of rows x [n, in], computed by one thread.
inline std::vector<float> product(const PackedLinear& w, std::span<const float> x, std::int64_t n) {
    TeamMember alone;
    PackedRows rows;
    rows.assign(alone, x.data(), n, w.in(), w.in(), w.format());
    std::vector<float> y(static_cast<std::size_t>(n * w.out()));
    w.multiply(alone, rows, y.data(), w.out());
    return y;
}

inline const std::vector<WeightFormat>& all_formats() {
    static const std::vector<WeightFormat> kFormats{WeightFormat::f32,  WeightFormat::bf16, WeightFormat::int8,
                                                    WeightFormat::q4_0, WeightFormat::q4_1, WeightFormat::q5_0,
                                                    WeightFormat::q5_1, WeightFormat::q8_0, WeightFormat::q4_k,
                                                    WeightFormat::q5_k, WeightFormat::q6_k, WeightFormat::q8_planes};
    return kFormats;
}

/// `in`, or the nearest larger size that the format's blocks divide.
inline std::int64_t fitting(WeightFormat format, std::int64_t in) { return is_k(format) ? (in + 255) / 256 * 256 : in; }

inline std::string label(Isa isa, WeightFormat format) {
    return std::string(name(isa)) + " " + std::string(name(format));
}

template <typename F>
void on_every_path(F body) {
    const IsaGuard guard;
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        INFO(name(isa));
        body();
    }
}

template <typename F>
void on_every_format(F body) {
    const IsaGuard guard;
    for (const Isa isa : available_isas()) {
        force_isa(isa);
        for (const WeightFormat format : all_formats()) {
            INFO(label(isa, format));
            body(isa, format);
        }
    }
}

}  // namespace outrider::testing
