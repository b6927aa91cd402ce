// What the integer kernels know of each format (pack.hpp has the layouts). Internal.
#pragma once

#include <cstddef>
#include <cstdint>

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
    static constexpr int kStepBytes = kValueBytes;  // of the values, from block to block
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
    static constexpr int kStepBytes = kValueBytes;
};

/// Q80 in planes of high and low nibbles.
struct Q8P {
    static constexpr bool kBytes = false, kMinimum = false, kSuper = false, kHalves = false, kOffset = true;
    static constexpr int kHighBits = 0, kOffsetShift = 7, kValueBytes = 512, kSuperBytes = 0, kScaleBytes = 32;
    static constexpr int kStepBytes = 256;
    static constexpr int kRhoBytes = 64;  // in front of a panel
    static constexpr float kLeastRho = 20;
};
template <class F>
inline constexpr bool kPlanes = F::kStepBytes < F::kValueBytes;

/// The two streams of a panel; of Q8P, the high plane's begin.
struct PanelStreams {
    const std::byte *values, *scales;
};
template <class F>
[[nodiscard]] inline PanelStreams streams_of(const std::byte* panel, std::int64_t blocks) {
    const std::byte* values = panel + (kPlanes<F> ? Q8P::kRhoBytes : 0);
    return {values, values + blocks * F::kStepBytes};
}

/// How far ahead of their use weights are asked for. One thread reads 13 GB/s with the two streams of a panel fetched
/// 3 KB ahead each, and 31 GB/s (the machine's limit) with one linear stream 8 KB ahead.
inline constexpr std::int64_t kPrefetchBytes = 8192;

/// Asks for what lies kPrefetchBytes behind block `b`'s share of the panel's memory, values and scales taken as one
/// stream: the memory then sees plain sequential reads. Of the low plane, that of a later panel.
template <class F>
inline __attribute__((always_inline)) void prefetch_block(const std::byte* panel, const std::byte* low,
                                                          std::int64_t b) {
    constexpr int kBytes = F::kStepBytes + F::kScaleBytes;
    const std::byte* ahead = panel + kPrefetchBytes + b * kBytes;
#pragma GCC unroll 16
    for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(ahead + i);
    if constexpr (kPlanes<F>) {
#pragma GCC unroll 4
        for (int i = 0; i < F::kStepBytes; i += 64) __builtin_prefetch(low + i);
    }
}

/// One entry for every format: fill<F>() gives a path's multiply.
#define OUTRIDER_INTEGER_KERNELS(multiply)                                                                       \
    IntegerKernels {                                                                                             \
        multiply<Q40>, multiply<Q41>, multiply<Q50>, multiply<Q51>, multiply<Q80>, multiply<Q4K>, multiply<Q5K>, \
            multiply<Q6K>, multiply<Q8P>                                                                         \
    }

}  // namespace outrider::kernels
