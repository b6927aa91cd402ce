// IEEE half precision to float in plain integers.
#pragma once

#include <cstdint>

namespace outrider::detail {

/// Exact, subnormals included. Always inlined: files that are compiled for other processors use it too, and none of
/// them may lend its copy to the rest.
[[nodiscard, gnu::always_inline]] inline float half_to_float(std::uint16_t h) noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16, rest = h & 0x7fffU;
    if (rest >= 0x7c00U) return __builtin_bit_cast(float, sign | 0x7f800000U | (rest & 0x3ffU) << 13);
    if (rest < 0x400U) {  // zero and subnormals: rest * 2^-24, exact
        const float magnitude = static_cast<float>(rest) * 0x1p-24F;
        return sign != 0 ? -magnitude : magnitude;
    }
    return __builtin_bit_cast(float, sign | (rest + (112U << 10)) << 13);
}

}  // namespace outrider::detail
