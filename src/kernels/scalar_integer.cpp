// The integer products in plain code: what every other path must equal, integer for integer.
#include <array>
#include <cstring>
#include <utility>

#include "half.hpp"
#include "integer_formats.hpp"
#include "kernel_table.hpp"
#include "walk.hpp"

namespace outrider::kernels {
namespace {

// The stored integer of output `column` at k = 4 s + i of a block; `low`: its low plane, where it has one.
template <class F>
inline std::int32_t stored(const std::byte* block, const std::byte* low, int s, int column, int i) {
    const auto byte = [&](std::int64_t row) {
        return std::to_integer<std::int32_t>(block[(row * kPanel + column) * 4 + i]);
    };
    if constexpr (F::kBytes) return byte(s);
    const std::int32_t nibble = s < 4 ? byte(s) & 15 : byte(s - 4) >> 4;
    if constexpr (kPlanes<F>) return nibble << 4 | stored<Q40>(low, nullptr, s, column, i);
    if constexpr (F::kHighBits == 1) return nibble | (byte(4) >> s & 1) << 4;
    if constexpr (F::kHighBits == 2) return nibble | (byte(4 + s / 4) >> 2 * (s % 4) & 3) << 4;
    return nibble;
}

inline float half_at(const std::byte* scales, std::int64_t index) {
    std::uint16_t half = 0;
    std::memcpy(&half, scales + 2 * index, 2);
    return half_to_float(half);
}

inline std::int32_t byte_at(const std::byte* bytes, std::int64_t index) {
    return std::to_integer<std::int32_t>(bytes[index]);
}

struct Scales {
    float d = 0, m = 0;
    std::int32_t low = 1, high = 1;  // of the two halves of a block
};

// Of output c in block b; `scales` is the panel's second stream.
template <class F>
Scales scales_of(const std::byte* scales, std::int64_t b, std::int64_t c) {
    if constexpr (!F::kSuper) {
        const std::byte* at = scales + b * F::kScaleBytes;
        return {half_at(at, c), F::kMinimum ? half_at(at, kPanel + c) : 0.0F};
    }
    const std::byte* super = scales + b / 8 * F::kSuperBytes;
    const std::byte* at = super + (F::kHalves ? 32 : 64) + b % 8 * 32;
    if constexpr (F::kHalves) {
        return {half_at(super, c), 0.0F, static_cast<std::int8_t>(byte_at(at, c)),
                static_cast<std::int8_t>(byte_at(at, kPanel + c))};
    }
    return {half_at(super, c) * static_cast<float>(byte_at(at, c)),
            -(half_at(super, kPanel + c) * static_cast<float>(byte_at(at, kPanel + c)))};
}

template <class F>
void tile(const TileArgs& t) {
    float acc[kPanel] = {};
    const auto [first, scales] = streams_of<F>(t.panel, t.blocks);
    for (std::int64_t b = 0; b < t.blocks; ++b) {
        const std::byte *values = first + b * F::kStepBytes, *plane = t.low + b * kLowStep;
        const RowScale& row = t.scales[b * t.group];
        const std::int8_t* x = t.bytes + b * 32 * t.group;
        const std::int32_t offset = F::kOffset ? 1 << F::kOffsetShift : 0;
        for (int c = 0; c < kPanel; ++c) {
            std::int32_t low = offset * row.minus_low, high = offset * (row.minus_all - row.minus_low);
            for (int s = 0; s < 8; ++s)
                for (int i = 0; i < 4; ++i) (s < 4 ? low : high) += stored<F>(values, plane, s, c, i) * x[4 * s + i];
            const Scales scale = scales_of<F>(scales, b, c);
            acc[c] += static_cast<float>(low * scale.low + high * scale.high) * row.scale * scale.d;
            if constexpr (F::kMinimum) acc[c] += scale.m * row.sum;
        }
    }
    for (int c = 0; c < t.width; ++c) t.y[c] = t.add ? t.y[c] + acc[c] : acc[c];
}

template <class F>
void multiply(const MultiplyArgs& args) {
    static constexpr Tile kTile = &tile<F>;
    walk_tiles(args, &kTile, 1, 1);
}

}  // namespace

IntegerKernels scalar_integer_kernels() { return OUTRIDER_INTEGER_KERNELS(multiply); }

}  // namespace outrider::kernels
