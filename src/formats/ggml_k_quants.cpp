#include "ggml_k_quants.hpp"

#include <array>

#include <outrider/formats/detail/bits.hpp>

namespace outrider::detail {
namespace {

using Byte = std::uint8_t;

/// The values of 4-bit codes in IQ4_NL and IQ4_XS.
constexpr std::array<float, 16> kNonLinear = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct ScaleAndMin {
    float scale, min;
};

/// Six-bit scale and minimum of sub-block j (0 to 7) out of the 12 packed bytes of Q4_K and Q5_K.
ScaleAndMin six_bits(const Byte* packed, int j) {
    if (j < 4) return {static_cast<float>(packed[j] & 63), static_cast<float>(packed[j + 4] & 63)};
    return {static_cast<float>((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4),
            static_cast<float>((packed[j + 4] >> 4) | (packed[j] >> 6) << 4)};
}

/// Six-bit scale of sub-block j (0 to 15) out of the 12 packed bytes of Q3_K, -32 to 31.
float signed_six_bits(const Byte* packed, int j) {
    const int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    const int high = (packed[8 + j % 4] >> (2 * (j / 4))) & 3;
    return static_cast<float>((low | high << 4) - 32);
}

}  // namespace

// 16 scales and minima of 4 bits, 64 bytes of 2-bit numbers, d, dmin. Number i = 128 h + 32 s + l sits in byte 32 h + l
// at bit 2 s; its sub-block is i / 16. The same order of 2-bit numbers holds for Q3_K.
void block_q2_k(const Byte* p, float* y) {
    const Byte* q = p + 16;
    const float d = half_at(p + 80), dmin = half_at(p + 82);
    for (int i = 0; i < 256; ++i) {
        const Byte scale = p[i / 16];
        const int code = (q[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
        y[i] = d * static_cast<float>(scale & 15) * static_cast<float>(code) - dmin * static_cast<float>(scale >> 4);
    }
}

// 32 bytes of high bits (set: nothing is subtracted), 64 bytes of 2-bit numbers, 12 bytes of scales, d.
void block_q3_k(const Byte* p, float* y) {
    const Byte* q = p + 32;
    const float d = half_at(p + 108);
    for (int i = 0; i < 256; ++i) {
        const int low = (q[32 * (i / 128) + i % 32] >> (2 * (i % 128 / 32))) & 3;
        const int high = (p[i % 32] >> (i / 32)) & 1;
        y[i] = d * signed_six_bits(p + 96, i / 16) * static_cast<float>(low - (high != 0 ? 0 : 4));
    }
}

// d, dmin, 12 bytes of scales and minima, 128 bytes of 4-bit numbers: 32 bytes hold sub-blocks 2 j and 2 j + 1.
void block_q4_k(const Byte* p, float* y) {
    const float d = half_at(p), dmin = half_at(p + 2);
    for (int j = 0; j < 8; ++j) {
        const auto [scale, min] = six_bits(p + 4, j);
        const float step = d * scale, offset = dmin * min;
        const Byte* q = p + 16 + 32 * (j / 2);
        for (int l = 0; l < 32; ++l) y[32 * j + l] = step * static_cast<float>((q[l] >> (4 * (j % 2))) & 15) - offset;
    }
}

// As Q4_K with 32 bytes of fifth bits before the numbers, bit j of byte l for number l of sub-block j.
void block_q5_k(const Byte* p, float* y) {
    const float d = half_at(p), dmin = half_at(p + 2);
    for (int j = 0; j < 8; ++j) {
        const auto [scale, min] = six_bits(p + 4, j);
        const float step = d * scale, offset = dmin * min;
        const Byte* q = p + 48 + 32 * (j / 2);
        for (int l = 0; l < 32; ++l) {
            const int code = ((q[l] >> (4 * (j % 2))) & 15) | ((p[16 + l] >> j) & 1) << 4;
            y[32 * j + l] = step * static_cast<float>(code) - offset;
        }
    }
}

// 128 bytes of low halves, 64 bytes of 2 high bits, 16 signed scales, d. Number i = 128 h + 32 s + l has its low half
// in byte 64 h + 32 (s % 2) + l (upper nibble for s >= 2) and its high bits in byte 32 h + l at bit 2 s.
void block_q6_k(const Byte* p, float* y) {
    const Byte* high = p + 128;
    const Byte* scales = p + 192;
    const float d = half_at(p + 208);
    for (int i = 0; i < 256; ++i) {
        const int h = i / 128, s = i % 128 / 32, l = i % 32;
        const int low = (p[64 * h + 32 * (s % 2) + l] >> (4 * (s / 2))) & 15;
        const int code = (low | ((high[32 * h + l] >> (2 * s)) & 3) << 4) - 32;
        y[i] = d * static_cast<float>(static_cast<std::int8_t>(scales[i / 16])) * static_cast<float>(code);
    }
}

void block_iq4_nl(const Byte* p, float* y) {
    const float d = half_at(p);
    for (int j = 0; j < 16; ++j) {
        y[j] = d * kNonLinear[p[2 + j] & 15];
        y[j + 16] = d * kNonLinear[p[2 + j] >> 4];
    }
}

// d, 16 bits with the high parts of 8 scales, 4 bytes with their low parts, 128 bytes of codes as in IQ4_NL.
void block_iq4_xs(const Byte* p, float* y) {
    const float d = half_at(p);
    const auto high = load<std::uint16_t>(p + 2);
    for (int b = 0; b < 8; ++b) {
        const int scale = ((p[4 + b / 2] >> (4 * (b % 2))) & 15) | ((high >> (2 * b)) & 3) << 4;
        const float step = d * static_cast<float>(scale - 32);
        const Byte* q = p + 8 + 16 * b;
        for (int j = 0; j < 16; ++j) {
            y[32 * b + j] = step * kNonLinear[q[j] & 15];
            y[32 * b + j + 16] = step * kNonLinear[q[j] >> 4];
        }
    }
}

}  // namespace outrider::detail
