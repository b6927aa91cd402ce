// What the integer kernels know of each format (pack.hpp has the layouts). Internal.
#pragma once

namespace outrider::kernels {

/// A quantised weight is d * (stored - offset) + m with an unsigned stored integer of 4 + kHighBits bits (8 bits where
/// kBytes). d and m are halves per block of 32; where kSuper they are a half per 256 times an integer per block; where
/// kHalves, d's integer belongs to 16 values and has a sign.
template <int high_bits, int offset_shift, bool minimum, bool super = false, bool halves = false>
struct NibbleFormat {
    static constexpr bool kBytes = false, kMinimum = minimum, kSuper = super, kHalves = halves;
    static constexpr int kHighBits = high_bits;
    static constexpr bool kOffset = offset_shift > 0;
    static constexpr int kOffsetShift = offset_shift;  // log2 of the offset
    static constexpr int kValueBytes = 256 + 64 * high_bits;
    static constexpr int kSuperBytes = !super ? 0 : (halves ? 32 : 64) + 8 * 32;  // scales of 8 blocks
    static constexpr int kScaleBytes = super ? kSuperBytes / 8 : minimum ? 64 : 32;
};

using Q40 = NibbleFormat<0, 3, false>;
using Q41 = NibbleFormat<0, 0, true>;
using Q50 = NibbleFormat<1, 4, false>;
using Q51 = NibbleFormat<1, 0, true>;
using Q4K = NibbleFormat<0, 0, true, true>;
using Q5K = NibbleFormat<1, 0, true, true>;
using Q6K = NibbleFormat<2, 5, false, true, true>;

struct Q80 {
    static constexpr bool kBytes = true, kMinimum = false, kSuper = false, kHalves = false, kOffset = true;
    static constexpr int kHighBits = 0, kOffsetShift = 7, kValueBytes = 512, kSuperBytes = 0, kScaleBytes = 32;
};

/// One entry for every format: fill<F>() gives a path's multiply.
#define OUTRIDER_INTEGER_KERNELS(multiply)                                                                    \
    IntegerKernels {                                                                                          \
        multiply<Q40>, multiply<Q41>, multiply<Q50>, multiply<Q51>, multiply<Q80>, multiply<Q4K>, multiply<Q5K>, \
            multiply<Q6K>                                                                                     \
    }

}  // namespace outrider::kernels
