#include "pack.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.hpp"
#include "integer_formats.hpp"
#include "kernel_table.hpp"

namespace outrider::kernels {
namespace {

void pack_f32(const float* weights, std::int64_t columns, std::int64_t in, std::byte* panel) {
    auto* to = reinterpret_cast<float*>(panel);
    for (std::int64_t k = 0; k < in; ++k)
        for (std::int64_t c = 0; c < columns; ++c) to[k * kPanel + c] = weights[c * in + k];
}

template <typename Half>
void pack_halves(Half half, std::int64_t columns, std::int64_t in, std::byte* panel) {
    auto* to = reinterpret_cast<std::uint16_t*>(panel);
    for (std::int64_t k = 0; k < in; ++k)
        for (std::int64_t c = 0; c < columns; ++c) to[(k / 2 * kPanel + c) * 2 + k % 2] = half(c * in + k);
}

// 32 integers + 128, and a half-precision scale.
struct ByteBlock {
    std::uint8_t q[32];
    std::uint16_t scale;
};

// 32 floats (fewer at the end of a row). The integers are rounded against the scale as it will be read back.
ByteBlock to_bytes(const float* weights, std::int64_t count) {
    float largest = 0;
    for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(weights[i]));
    ByteBlock block;
    block.scale = float_to_half(largest / 127.0F);
    const float scale = half_to_float(block.scale);
    const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
    for (std::int64_t i = 0; i < 32; ++i) {
        const float scaled = i < count ? std::clamp(weights[i] * inverse, -127.0F, 127.0F) : 0.0F;
        block.q[i] = static_cast<std::uint8_t>(std::lrint(scaled) + 128);
    }
    return block;
}

// A block of q8_0.
ByteBlock bytes_of(const std::byte* file) {
    ByteBlock block;
    std::memcpy(&block.scale, file, 2);
    std::memcpy(block.q, file + 2, 32);
    for (std::uint8_t& q : block.q) q ^= 0x80U;  // + 128
    return block;
}

void place_bytes(const ByteBlock& block, std::int64_t column, std::byte* values, std::uint16_t* scales) {
    scales[column] = block.scale;
    for (std::int64_t i = 0; i < 32; ++i)
        values[(i / 4 * kPanel + column) * 4 + i % 4] = static_cast<std::byte>(block.q[i]);
}

// Places 32 integers of 4 + high_bits bits.
void place(const std::uint8_t* q, int high_bits, std::int64_t column, std::byte* values) {
    for (std::int64_t s = 0; s < 4; ++s)
        for (std::int64_t i = 0; i < 4; ++i)
            values[(s * kPanel + column) * 4 + i] =
                static_cast<std::byte>((q[4 * s + i] & 15) | (q[16 + 4 * s + i] & 15) << 4);
    for (std::int64_t i = 0; high_bits > 0 && i < 4; ++i) {
        std::uint32_t bits = 0;
        for (int s = 0; s < 8; ++s) bits |= static_cast<std::uint32_t>(q[4 * s + i] >> 4) << high_bits * s;
        for (int part = 0; part < high_bits; ++part)
            values[256 + (part * kPanel + column) * 4 + i] = static_cast<std::byte>(bits >> 8 * part & 255U);
    }
}

// Block b of a panel of q8_planes.
void place_planes(const ByteBlock& block, std::int64_t b, std::int64_t blocks, std::int64_t column, std::byte* panel,
                  std::byte* lows) {
    std::uint8_t high[32], low[32];
    double squares = 0;
    for (int i = 0; i < 32; ++i) {
        high[i] = block.q[i] >> 4, low[i] = block.q[i] & 15;
        squares += (low[i] - 7.5) * (low[i] - 7.5);
    }
    std::byte* values = panel + Q8P::kRhoBytes + b * Q8P::kStepBytes;
    place(high, 0, column, values);
    place(low, 0, column, lows + b * kLowStep);
    std::memcpy(panel + Q8P::kRhoBytes + blocks * Q8P::kStepBytes + b * Q8P::kScaleBytes + 2 * column, &block.scale, 2);
    float& rho = reinterpret_cast<float*>(panel)[column];
    rho = std::max({rho, Q8P::kLeastRho, std::nextafter(static_cast<float>(std::sqrt(squares)), HUGE_VALF)});
}

// 32 floats (fewer at the end of a row) as d q + m with q of 4 or 5 bits, from the least to the largest. The integers
// are rounded against d and m as they will be read back.
void pack_minimum_block(const float* weights, std::int64_t count, int high_bits, std::int64_t column, std::byte* values,
                        std::uint16_t* scales) {
    const auto [least, largest] = std::minmax_element(weights, weights + count);
    const auto steps = static_cast<float>((16 << high_bits) - 1);
    scales[column] = float_to_half((*largest - *least) / steps);
    scales[kPanel + column] = float_to_half(*least);
    const float scale = half_to_float(scales[column]), minimum = half_to_float(scales[kPanel + column]);
    const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
    std::uint8_t q[32] = {};
    for (std::int64_t i = 0; i < count; ++i)
        q[i] = static_cast<std::uint8_t>(std::lrint(std::clamp((weights[i] - minimum) * inverse, 0.0F, steps)));
    place(q, high_bits, column, values);
}

// Blocks of 32 with 4 or 5 bits: halves d (and m), 4 bytes of fifth bits, then nibbles of k and k + 16.
void pack_nibble_block(const std::byte* block, bool has_minimum, bool has_fifth, std::int64_t column, std::byte* values,
                       std::uint16_t* scales) {
    std::memcpy(scales + column, block, 2);
    if (has_minimum) std::memcpy(scales + kPanel + column, block + 2, 2);
    block += has_minimum ? 4 : 2;
    if (has_fifth) {
        std::uint32_t bits = 0;
        std::memcpy(&bits, block, 4);
        block += 4;
        for (int i = 0; i < 4; ++i) {  // every fourth bit, from bit i on
            std::uint32_t byte = 0;
            for (int s = 0; s < 8; ++s) byte |= (bits >> (4 * s + i) & 1U) << s;
            values[256 + column * 4 + i] = static_cast<std::byte>(byte);
        }
    }
    for (std::int64_t s = 0; s < 4; ++s) std::memcpy(values + (s * kPanel + column) * 4, block + 4 * s, 4);
}

// The 6-bit scale and minimum of block j of 8 (ggml's get_scale_min_k4).
void k4_scales(const std::uint8_t* packed, int j, std::byte& scale, std::byte& minimum) {
    const auto high = [&](int at, int nibble) { return (packed[at] >> 6) << 4 | nibble; };
    scale = static_cast<std::byte>(j < 4 ? packed[j] & 63 : high(j - 4, packed[j + 4] & 15));
    minimum = static_cast<std::byte>(j < 4 ? packed[j + 4] & 63 : high(j, packed[j + 4] >> 4));
}

// 256 values of q4_k or q5_k: d, dmin, 12 bytes of scales, (32 bytes of fifth bits,) nibbles of 4 x 64.
void pack_k4_block(const std::byte* block, bool has_fifth, std::int64_t column, std::byte* values,
                   std::int64_t value_bytes, std::byte* scales) {
    std::memcpy(scales + 2 * column, block, 2);
    std::memcpy(scales + 32 + 2 * column, block + 2, 2);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(block);
    const std::uint8_t *fifth = bytes + 16, *nibbles = bytes + (has_fifth ? 48 : 16);
    for (int j = 0; j < 8; ++j) {
        std::byte* at = scales + 64 + 32 * j + column;
        k4_scales(bytes + 4, j, at[0], at[kPanel]);
        std::uint8_t q[32];
        for (int i = 0; i < 32; ++i) {
            const int nibble = j % 2 == 0 ? nibbles[j / 2 * 32 + i] & 15 : nibbles[j / 2 * 32 + i] >> 4;
            q[i] = static_cast<std::uint8_t>(has_fifth ? nibble | (fifth[i] >> j & 1) << 4 : nibble);
        }
        place(q, has_fifth ? 1 : 0, column, values + j * value_bytes);
    }
}

// 256 values of q6_k: 128 bytes of low nibbles, 64 of high bits, 16 signed scales, d.
void pack_q6_block(const std::byte* block, std::int64_t column, std::byte* values, std::byte* scales) {
    std::memcpy(scales + 2 * column, block + 208, 2);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(block);
    for (int j = 0; j < 8; ++j) {  // 32 values; four such share 64 bytes of nibbles and 32 of high bits
        const int half = j / 4, quarter = j % 4;
        std::byte* at = scales + 32 + 32 * j + column;
        at[0] = block[192 + 2 * j], at[kPanel] = block[192 + 2 * j + 1];
        std::uint8_t q[32];
        for (int i = 0; i < 32; ++i) {
            const int low = bytes[64 * half + 32 * (quarter % 2) + i];
            const int high = bytes[128 + 32 * half + i] >> 2 * quarter & 3;
            q[i] = static_cast<std::uint8_t>((quarter < 2 ? low & 15 : low >> 4) | high << 4);
        }
        place(q, 2, column, values + j * Q6K::kValueBytes);
    }
}

void pack_file_block(WeightFormat format, const std::byte* block, std::int64_t column, std::byte* values,
                     std::byte* scales) {
    auto* halves = reinterpret_cast<std::uint16_t*>(scales);
    switch (format) {
        case WeightFormat::q4_0: return pack_nibble_block(block, false, false, column, values, halves);
        case WeightFormat::q4_1: return pack_nibble_block(block, true, false, column, values, halves);
        case WeightFormat::q5_0: return pack_nibble_block(block, false, true, column, values, halves);
        case WeightFormat::q5_1: return pack_nibble_block(block, true, true, column, values, halves);
        case WeightFormat::q4_k: return pack_k4_block(block, false, column, values, Q4K::kValueBytes, scales);
        case WeightFormat::q5_k: return pack_k4_block(block, true, column, values, Q5K::kValueBytes, scales);
        case WeightFormat::q6_k: return pack_q6_block(block, column, values, scales);
        default: return place_bytes(bytes_of(block), column, values, halves);
    }
}

}  // namespace

PanelShape panel_shape(WeightFormat format) {
    switch (format) {
        case WeightFormat::f32: return {32 * kPanel * 4, 0};
        case WeightFormat::bf16: return {32 * kPanel * 2, 0};
        case WeightFormat::int8:
        case WeightFormat::q8_planes:
        case WeightFormat::q8_0: return {Q80::kValueBytes, Q80::kScaleBytes};
        case WeightFormat::q4_0: return {Q40::kValueBytes, Q40::kScaleBytes};
        case WeightFormat::q4_1: return {Q41::kValueBytes, Q41::kScaleBytes};
        case WeightFormat::q5_0: return {Q50::kValueBytes, Q50::kScaleBytes};
        case WeightFormat::q5_1: return {Q51::kValueBytes, Q51::kScaleBytes};
        case WeightFormat::q4_k: return {Q4K::kValueBytes, Q4K::kScaleBytes};
        case WeightFormat::q5_k: return {Q5K::kValueBytes, Q5K::kScaleBytes};
        case WeightFormat::q6_k: return {Q6K::kValueBytes, Q6K::kScaleBytes};
    }
    return {};
}

std::int64_t panel_bytes(WeightFormat format, std::int64_t blocks) {
    if (format == WeightFormat::q8_planes)
        return (Q8P::kRhoBytes + blocks * (Q8P::kStepBytes + Q8P::kScaleBytes) + 63) / 64 * 64;
    const PanelShape shape = panel_shape(format);
    return (blocks * (shape.values + shape.scales) + 63) / 64 * 64;
}

void pack_floats(WeightFormat format, const float* weights, std::int64_t columns, std::int64_t in, std::int64_t blocks,
                 std::byte* panel, std::byte* low) {
    if (format == WeightFormat::f32) return pack_f32(weights, columns, in, panel);
    if (format == WeightFormat::bf16)
        return pack_halves([&](std::int64_t i) { return float_to_bfloat16(weights[i]); }, columns, in, panel);
    const PanelShape shape = panel_shape(format);
    auto* scales = reinterpret_cast<std::uint16_t*>(panel + blocks * shape.values);
    for (std::int64_t c = 0; c < columns; ++c)
        for (std::int64_t b = 0; b < blocks; ++b) {
            const float* from = weights + c * in + 32 * b;
            const std::int64_t count = std::min<std::int64_t>(32, in - 32 * b);
            std::byte* values = panel + b * shape.values;
            std::uint16_t* own = scales + b * shape.scales / 2;
            if (format == WeightFormat::q8_planes)
                place_planes(to_bytes(from, count), b, blocks, c, panel, low);
            else if (format == WeightFormat::int8)
                place_bytes(to_bytes(from, count), c, values, own);
            else
                pack_minimum_block(from, count, format == WeightFormat::q5_1 ? 1 : 0, c, values, own);
        }
}

void pack_file_blocks(WeightFormat format, const std::byte* weights, std::int64_t columns, std::int64_t in,
                      std::int64_t blocks, std::byte* panel, std::byte* low) {
    if (format == WeightFormat::bf16) {
        return pack_halves(
            [&](std::int64_t i) {
                std::uint16_t half = 0;
                std::memcpy(&half, weights + 2 * i, 2);
                return half;
            },
            columns, in, panel);
    }
    const PanelShape shape = panel_shape(format);
    const BlockShape file = block_shape(format);
    const std::int64_t together = file.values / 32;  // blocks of 32 in one of the file's
    std::byte* scale_stream = panel + blocks * shape.values;
    for (std::int64_t b = 0; b < blocks; b += together)
        for (std::int64_t c = 0; c < columns; ++c) {
            const std::byte* from = weights + (c * blocks + b) / together * file.bytes;
            if (format == WeightFormat::q8_planes)
                place_planes(bytes_of(from), b, blocks, c, panel, low);
            else
                pack_file_block(format, from, c, panel + b * shape.values, scale_stream + b * shape.scales);
        }
}

}  // namespace outrider::kernels
