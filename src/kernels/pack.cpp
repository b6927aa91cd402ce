#include "pack.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.hpp"
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

// 32 floats (fewer at the end of a row) of one column as integers + 128 and a half-precision scale. The integers are
// rounded against the scale as it will be read back.
void pack_int8_block(const float* weights, std::int64_t count, std::int64_t column, std::byte* values,
                     std::uint16_t* scales) {
    float largest = 0;
    for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::abs(weights[i]));
    scales[column] = float_to_half(largest / 127.0F);
    const float scale = half_to_float(scales[column]);
    const float inverse = scale > 0 ? 1.0F / scale : 0.0F;
    for (std::int64_t i = 0; i < 32; ++i) {
        const float scaled = i < count ? std::clamp(weights[i] * inverse, -127.0F, 127.0F) : 0.0F;
        values[(i / 4 * kPanel + column) * 4 + i % 4] = static_cast<std::byte>(std::lrint(scaled) + 128);
    }
}

void pack_q4_block(const std::byte* block, bool has_minimum, std::int64_t column, std::byte* values,
                   std::uint16_t* scales) {
    std::memcpy(scales + column, block, 2);
    if (has_minimum) std::memcpy(scales + kPanel + column, block + 2, 2);
    block += has_minimum ? 4 : 2;
    for (std::int64_t s = 0; s < 4; ++s) std::memcpy(values + (s * kPanel + column) * 4, block + 4 * s, 4);
}

void pack_q8_block(const std::byte* block, std::int64_t column, std::byte* values, std::uint16_t* scales) {
    std::memcpy(scales + column, block, 2);
    for (std::int64_t s = 0; s < 8; ++s) {
        std::uint32_t word = 0;
        std::memcpy(&word, block + 2 + 4 * s, 4);
        word ^= 0x80808080U;  // + 128 in every byte
        std::memcpy(values + (s * kPanel + column) * 4, &word, 4);
    }
}

}  // namespace

PanelShape panel_shape(WeightFormat format) {
    switch (format) {
        case WeightFormat::f32: return {32 * kPanel * 4, 0};
        case WeightFormat::bf16: return {32 * kPanel * 2, 0};
        case WeightFormat::int8:
        case WeightFormat::q8_0: return {32 * kPanel, 2 * kPanel};
        case WeightFormat::q4_0: return {16 * kPanel, 2 * kPanel};
        case WeightFormat::q4_1: return {16 * kPanel, 4 * kPanel};
    }
    return {};
}

std::int64_t panel_bytes(WeightFormat format, std::int64_t blocks) {
    const PanelShape shape = panel_shape(format);
    return (blocks * (shape.values + shape.scales) + 63) / 64 * 64;
}

void pack_floats(WeightFormat format, const float* weights, std::int64_t columns, std::int64_t in, std::int64_t blocks,
                 std::byte* panel) {
    if (format == WeightFormat::f32) return pack_f32(weights, columns, in, panel);
    if (format == WeightFormat::bf16)
        return pack_halves([&](std::int64_t i) { return float_to_bfloat16(weights[i]); }, columns, in, panel);
    const PanelShape shape = panel_shape(format);
    auto* scales = reinterpret_cast<std::uint16_t*>(panel + blocks * shape.values);
    for (std::int64_t c = 0; c < columns; ++c)
        for (std::int64_t b = 0; b < blocks; ++b)
            pack_int8_block(weights + c * in + 32 * b, std::min<std::int64_t>(32, in - 32 * b), c,
                            panel + b * shape.values, scales + b * shape.scales / 2);
}

void pack_file_blocks(WeightFormat format, const std::byte* weights, std::int64_t columns, std::int64_t in,
                      std::int64_t blocks, std::byte* panel) {
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
    const std::int64_t block_bytes = block_shape(format).bytes;
    for (std::int64_t b = 0; b < blocks; ++b) {
        std::byte* values = panel + b * shape.values;
        auto* scales = reinterpret_cast<std::uint16_t*>(panel + blocks * shape.values + b * shape.scales);
        for (std::int64_t c = 0; c < columns; ++c) {
            const std::byte* block = weights + (c * blocks + b) * block_bytes;
            if (format == WeightFormat::q8_0) pack_q8_block(block, c, values, scales);
            else pack_q4_block(block, format == WeightFormat::q4_1, c, values, scales);
        }
    }
}

}  // namespace outrider::kernels
