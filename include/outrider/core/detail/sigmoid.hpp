// The logistic function.
#pragma once

#include <cmath>

namespace outrider::detail {

/// 1 / (1 + e^-x), without overflow.
[[nodiscard]] inline float sigmoid(float x) {
    const float e = std::exp(-std::abs(x));
    return (x >= 0 ? 1.0F : e) / (1.0F + e);
}

}  // namespace outrider::detail
