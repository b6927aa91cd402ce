// What the kernel tests share: seeded values, random blocks of every format, their meaning in doubles.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <outrider/core/rng.hpp>
#include <outrider/tensor/isa.hpp>
#include <outrider/tensor/packed_linear.hpp>

namespace outrider::testing {

/// Puts the path back that was active before.
class IsaGuard {
public:
    IsaGuard() : before_(active_isa()) {}
    ~IsaGuard() { force_isa(before_); }
    IsaGuard(const IsaGuard&) = delete;
    IsaGuard& operator=(const IsaGuard&) = delete;

private:
    Isa before_;
};

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
    const double fraction = std::frexp(std::abs(x), &exponent);  // [0.5, 1)
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

/// Random ggml blocks: random integers, random scales, or scale 1 and minimum `minimum` when `exact`.
inline std::vector<std::byte> random_blocks(WeightFormat format, std::int64_t blocks, Draws& draws, bool exact) {
    const BlockShape shape = block_shape(format);
    std::vector<std::byte> bytes(static_cast<std::size_t>(blocks * shape.bytes));
    for (std::byte& b : bytes) b = static_cast<std::byte>(draws.below(256));
    for (std::int64_t b = 0; b < blocks; ++b) {
        std::byte* block = bytes.data() + b * shape.bytes;
        const std::uint16_t d = half(exact ? 1.0 : 0.01 + 0.1 * draws.uniform());
        std::memcpy(block, &d, 2);
        if (format == WeightFormat::q4_1) {
            const std::uint16_t m = half(exact ? -8.0 : -0.8 * draws.uniform());
            std::memcpy(block + 2, &m, 2);
        }
        if (format == WeightFormat::q8_0)
            for (std::int64_t i = 2; i < shape.bytes; ++i)
                if (block[i] == std::byte{0x80}) block[i] = std::byte{0x81};
    }
    return bytes;
}

/// What a file's blocks mean, by the format's definition (ggml-quants).
inline std::vector<double> meaning(WeightFormat format, std::span<const std::byte> bytes) {
    const BlockShape shape = block_shape(format);
    std::vector<double> result;
    for (std::size_t at = 0; at < bytes.size(); at += static_cast<std::size_t>(shape.bytes)) {
        const std::byte* block = bytes.data() + at;
        std::uint16_t d = 0, m = 0;
        std::memcpy(&d, block, 2);
        std::memcpy(&m, block + 2, 2);
        for (int i = 0; i < 32; ++i) {
            if (format == WeightFormat::q8_0) {
                result.push_back(from_half(d) * static_cast<std::int8_t>(block[2 + i]));
                continue;
            }
            const auto pair = std::to_integer<int>(block[(format == WeightFormat::q4_1 ? 4 : 2) + i % 16]);
            const int q = i < 16 ? pair & 15 : pair >> 4;
            result.push_back(format == WeightFormat::q4_1 ? from_half(d) * q + from_half(m) : from_half(d) * (q - 8));
        }
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
                w = scale * static_cast<double>(std::lrint(std::clamp(static_cast<float>(w) * inverse, -127.0F, 127.0F)));
        }
}

inline TestMatrix random_matrix(WeightFormat format, std::int64_t out, std::int64_t in, std::uint64_t seed,
                                bool exact = false) {
    Draws draws(seed);
    if (format == WeightFormat::f32 || format == WeightFormat::bf16 || format == WeightFormat::int8) {
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
    const auto bytes = random_blocks(format, out * in / 32, draws, exact);
    return {PackedLinear::pack_blocks(format, bytes, out, in), meaning(format, bytes)};
}

/// Row `row`, value k as the packed rows hold it.
inline double packed_value(const PackedRows& rows, std::int64_t row, std::int64_t k) {
    const std::int64_t first = row / PackedRows::kRowGroup * PackedRows::kRowGroup, r = row - first;
    const std::int64_t group = std::min(PackedRows::kRowGroup, rows.rows() - first), in = rows.padded_in();
    if (rows.form() == RowForm::f32) return rows.floats()[first * in + k * group + r];
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
                                                    WeightFormat::q4_0, WeightFormat::q4_1, WeightFormat::q8_0};
    return kFormats;
}

}  // namespace outrider::testing
