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

// The stored integer of output `column` at k = 4 s + i of a block.
template <class F>
inline std::int32_t stored(const std::byte* block, int s, int column, int i) {
    if constexpr (F::kNibbles) {
        const auto byte = std::to_integer<std::int32_t>(block[(s % 4 * kPanel + column) * 4 + i]);
        return s < 4 ? byte & 15 : byte >> 4;
    } else {
        return std::to_integer<std::int32_t>(block[(s * kPanel + column) * 4 + i]);
    }
}

inline float half_at(const std::byte* scales, std::int64_t index) {
    std::uint16_t half = 0;
    std::memcpy(&half, scales + 2 * index, 2);
    return half_to_float(half);
}

template <class F>
void block_sums(const std::byte* block, const std::int8_t* x, std::int32_t start, std::int32_t (&sums)[kPanel]) {
    for (std::int32_t& sum : sums) sum = start;
    for (int s = 0; s < 8; ++s)
        for (int c = 0; c < kPanel; ++c)
            for (int i = 0; i < 4; ++i) sums[c] += stored<F>(block, s, c, i) * x[4 * s + i];
}

template <class F>
void tile(const TileArgs& t) {
    float acc[kPanel] = {};
    const std::byte* values = t.panel;
    const std::byte* scales = t.panel + t.blocks * F::kValueBytes;
    for (std::int64_t b = 0; b < t.blocks; ++b, values += F::kValueBytes, scales += F::kScaleBytes) {
        const RowScale& row = t.scales[b * t.group];
        std::int32_t sums[kPanel];
        block_sums<F>(values, t.bytes + b * 32 * t.group, F::kOffset ? row.minus_all * (1 << F::kOffsetShift) : 0, sums);
        for (int c = 0; c < kPanel; ++c) {
            acc[c] += static_cast<float>(sums[c]) * row.scale * half_at(scales, c);
            if constexpr (F::kMinimum) acc[c] += half_at(scales, kPanel + c) * row.sum;
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

IntegerKernels scalar_integer_kernels() { return {multiply<Q40>, multiply<Q41>, multiply<Q80>}; }

}  // namespace outrider::kernels
