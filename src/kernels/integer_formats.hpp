// What the integer kernels know of each format (pack.hpp has the layouts). Internal.
#pragma once

#include <cstdint>

namespace outrider::kernels {

/// The stored integers are unsigned: weight = d * (stored - offset) + m. kOffsetShift is log2 of the offset.
struct Q40 {
    static constexpr int kValueBytes = 256, kScaleBytes = 32, kOffsetShift = 3;
    static constexpr bool kNibbles = true, kOffset = true, kMinimum = false;
};
struct Q41 {
    static constexpr int kValueBytes = 256, kScaleBytes = 64, kOffsetShift = 0;
    static constexpr bool kNibbles = true, kOffset = false, kMinimum = true;
};
struct Q80 {
    static constexpr int kValueBytes = 512, kScaleBytes = 32, kOffsetShift = 7;
    static constexpr bool kNibbles = false, kOffset = true, kMinimum = false;
};

}  // namespace outrider::kernels
