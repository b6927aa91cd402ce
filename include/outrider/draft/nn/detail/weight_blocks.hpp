// Matrices of a drafter in blocks of 32 weights, the form in which the CPU's kernels multiply them. Layouts are ggml's
// (ggml-common.h: block_q4_1, block_q5_1, block_q8_0); the numbers are rounded as loading rounds them, so that a matrix
// which goes through its file form is packed to the same bits again, where steps are above 6e-5 (normal halves).
#pragma once

#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include <outrider/formats/detail/safetensors.hpp>

namespace outrider::detail {

inline constexpr std::int64_t kBlockWeights = 32;

/// The value is the bytes of one block.
enum class BlockFormat : std::uint8_t {
    q4_1 = 20,  ///< d q + m, q of 4 bits
    q5_1 = 24,  ///< d q + m, q of 5 bits
    q8_0 = 34,  ///< d q, q of 8 bits with sign
};

/// Of a tensor U8 [rows, columns / 32, bytes of a block]; none: an ordinary tensor.
[[nodiscard]] inline std::optional<BlockFormat> block_format(const SafeTensor& tensor) {
    if (tensor.dtype != SafeDtype::u8 || tensor.shape.size() != 3) return std::nullopt;
    for (const BlockFormat format : {BlockFormat::q4_1, BlockFormat::q5_1, BlockFormat::q8_0})
        if (tensor.shape[2] == static_cast<std::int64_t>(format)) return format;
    return std::nullopt;
}

inline void put_half(std::byte* to, float x) {
    const c10::Half half(x);
    std::memcpy(to, &half.x, sizeof(half.x));
}
[[nodiscard]] inline float get_half(const std::byte* from) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, from, sizeof(bits));
    return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

/// The nearest of 0 to `most` (or -most to most) to x / d; 0 where d is 0.
[[nodiscard]] inline int nearest(float x, float d, float least, float most) {
    const float inverse = d > 0 ? 1.0F / d : 0.0F;
    return static_cast<int>(std::lrint(std::clamp(x * inverse, least, most)));
}

/// One block: 32 weights to its bytes.
inline void encode_block(BlockFormat format, const float* weights, std::byte* to) {
    if (format == BlockFormat::q8_0) {
        float largest = 0;
        for (std::int64_t i = 0; i < kBlockWeights; ++i) largest = std::max(largest, std::abs(weights[i]));
        put_half(to, largest / 127.0F);
        for (std::int64_t i = 0; i < kBlockWeights; ++i)
            to[2 + i] = static_cast<std::byte>(nearest(weights[i], get_half(to), -127.0F, 127.0F));
        return;
    }
    const bool fifth = format == BlockFormat::q5_1;
    const float steps = fifth ? 31.0F : 15.0F;
    const auto [least, largest] = std::minmax_element(weights, weights + kBlockWeights);
    put_half(to, (*largest - *least) / steps);
    put_half(to + 2, *least);
    std::uint32_t high = 0;
    std::byte* nibbles = to + (fifth ? 8 : 4);
    for (int i = 0; i < 16; ++i) {
        const int low = nearest(weights[i] - get_half(to + 2), get_half(to), 0.0F, steps);
        const int up = nearest(weights[i + 16] - get_half(to + 2), get_half(to), 0.0F, steps);
        nibbles[i] = static_cast<std::byte>((low & 15) | (up & 15) << 4);
        high |= static_cast<std::uint32_t>(low >> 4) << i | static_cast<std::uint32_t>(up >> 4) << (i + 16);
    }
    if (fifth) std::memcpy(to + 4, &high, sizeof(high));
}

/// And back.
inline void decode_block(BlockFormat format, const std::byte* from, float* weights) {
    const float d = get_half(from);
    if (format == BlockFormat::q8_0) {
        for (std::int64_t i = 0; i < kBlockWeights; ++i)
            weights[i] = d * static_cast<float>(static_cast<std::int8_t>(from[2 + i]));
        return;
    }
    const bool fifth = format == BlockFormat::q5_1;
    const float m = get_half(from + 2);
    std::uint32_t high = 0;
    if (fifth) std::memcpy(&high, from + 4, sizeof(high));
    const std::byte* nibbles = from + (fifth ? 8 : 4);
    for (int i = 0; i < 16; ++i) {
        const auto byte = std::to_integer<std::uint32_t>(nibbles[i]);
        weights[i] = d * static_cast<float>((byte & 15) | (high >> i & 1) << 4) + m;
        weights[i + 16] = d * static_cast<float>(byte >> 4 | (high >> (i + 16) & 1) << 4) + m;
    }
}

}  // namespace outrider::detail
