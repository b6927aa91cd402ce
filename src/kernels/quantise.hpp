// The arithmetic of row quantisation that every path repeats bit for bit. Internal.
#pragma once

#include <cstdint>
#include <limits>

#include "kernels/packed_linear.hpp"

namespace outrider::kernels {

/// What 32 values with largest magnitude `bits` (as an integer: non-negative floats order like their bits, NaN above
/// infinity) are multiplied by to give integers, and the scale that turns those back.
struct BlockQuantiser {
    float inverse = 0;  ///< 127 / largest
    float scale = 0;    ///< largest / 127
};

[[nodiscard]] inline BlockQuantiser block_quantiser(std::int32_t bits) {
    if (bits >= 0x7f800000) return {0.0F, std::numeric_limits<float>::quiet_NaN()};
    const float largest = __builtin_bit_cast(float, bits);
    if (largest < 1e-35F) return {};  // 127 / largest would overflow
    return {127.0F / largest, largest / 127.0F};
}

}  // namespace outrider::kernels
