// IEEE half precision and bfloat16 from float in plain integers. Internal.
#pragma once

#include <cstdint>

#include <outrider/core/detail/half.hpp>

namespace outrider::kernels {

using detail::half_to_float;

/// Rounds to nearest, ties to even; overflow gives infinity, NaN stays NaN.
[[nodiscard]] inline std::uint16_t float_to_half(float x) {
    const auto bits = __builtin_bit_cast(std::uint32_t, x);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
    const std::uint32_t rest = bits & 0x7fffffffU;
    if (rest > 0x7f800000U) return sign | 0x7e00U;
    if (rest >= 0x477ff000U) return sign | 0x7c00U;  // 65520 and above
    if (rest < 0x38800000U) {  // below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
        const float sum = __builtin_bit_cast(float, rest) + 0.5F;
        return static_cast<std::uint16_t>(sign | (__builtin_bit_cast(std::uint32_t, sum) - 0x3f000000U));
    }
    const std::uint32_t rounded = rest + 0xfffU + (rest >> 13 & 1U);
    return static_cast<std::uint16_t>(sign | (rounded - (112U << 23)) >> 13);
}

/// Rounds to nearest, ties to even; NaN stays NaN.
[[nodiscard]] inline std::uint16_t float_to_bfloat16(float x) {
    const auto bits = __builtin_bit_cast(std::uint32_t, x);
    if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>(bits >> 16 | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

}  // namespace outrider::kernels
