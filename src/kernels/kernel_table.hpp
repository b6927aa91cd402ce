// The kernels of one vector path behind function pointers, and the views they work on. Internal.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <outrider/tensor/isa.hpp>
#include <outrider/tensor/packed_linear.hpp>

namespace outrider::kernels {

inline constexpr std::int64_t kPanel = PackedLinear::kPanel;
inline constexpr std::int64_t kRowGroup = PackedRows::kRowGroup;
inline constexpr std::size_t kFormats = static_cast<std::size_t>(WeightFormat::q8_0) + 1;

/// What a multiply of some panels of one matrix needs.
struct MultiplyArgs {
    const std::byte* panels = nullptr;   ///< panel 0 of the matrix
    std::int64_t panel_bytes = 0;
    std::int64_t begin = 0, end = 0;     ///< panels to compute
    std::int64_t out = 0;                ///< outputs of the matrix; the last panel may be narrower than 16
    std::int64_t blocks = 0;             ///< padded in / 32
    std::int64_t rows = 0;
    const float* floats = nullptr;       ///< rows as PackedRows lays them out: floats, or bytes and scales
    const std::int8_t* bytes = nullptr;
    const RowScale* scales = nullptr;
    float* y = nullptr;                  ///< output 0 of row 0
    std::int64_t ldy = 0;
    bool add = false;
};

/// What a register tile needs: one panel of 16 outputs, some neighbouring rows of one group.
struct TileArgs {
    const std::byte* panel = nullptr;
    std::int64_t blocks = 0;
    const float* floats = nullptr;       ///< first row of the tile at k = 0; k advances by `group` floats
    const std::int8_t* bytes = nullptr;  ///< first row at block 0; a block advances by 32 `group`
    const RowScale* scales = nullptr;    ///< first row at block 0; a block advances by `group`
    std::int64_t group = 0;              ///< rows of the group
    float* y = nullptr;                  ///< first row, first output
    std::int64_t ldy = 0;
    int width = 0;                       ///< outputs to store, 1 to 16
    bool add = false;
};
using Tile = void (*)(const TileArgs&);

using Multiply = void (*)(const MultiplyArgs&);

/// The multiplies of the quantised formats.
struct IntegerKernels {
    Multiply q4_0 = nullptr, q4_1 = nullptr, q8_0 = nullptr;
};

/// One path. Every pointer is set.
struct Table {
    Isa isa = Isa::scalar;
    std::array<Multiply, kFormats> multiply{};  ///< by WeightFormat
    /// x [32 blocks] to int8: block b at q + b * q_stride, its scales at scales[b * scale_stride].
    void (*quantise_row)(const float* x, std::int64_t blocks, std::int8_t* q, std::int64_t q_stride, RowScale* scales,
                         std::int64_t scale_stride) = nullptr;
    void (*rms_norm_row)(const float* x, std::int64_t n, const float* weight, float eps, float* y) = nullptr;
    void (*silu_gate_row)(const float* gate, const float* up, std::int64_t n, float* y) = nullptr;
};

/// Bytes of a packed panel for `blocks` blocks of 32 k.
[[nodiscard]] std::int64_t panel_bytes(WeightFormat format, std::int64_t blocks);

[[nodiscard]] const Table& table(Isa isa);  ///< of an available path
[[nodiscard]] inline const Table& active_table() { return table(active_isa()); }

/// The multiply entries of a table, in WeightFormat's order.
[[nodiscard]] inline std::array<Multiply, kFormats> multiplies(Multiply f32, Multiply bf16, const IntegerKernels& by) {
    return {f32, bf16, by.q8_0, by.q4_0, by.q4_1, by.q8_0};
}

[[nodiscard]] IntegerKernels scalar_integer_kernels();
#if defined(__x86_64__)
[[nodiscard]] IntegerKernels avx2_integer_kernels();
[[nodiscard]] IntegerKernels vnni_integer_kernels();
#endif

[[nodiscard]] const Table& scalar_table();
#if defined(__x86_64__)
[[nodiscard]] const Table& avx2_table();
[[nodiscard]] const Table& avx512_table();
[[nodiscard]] const Table& vnni_table();
#endif
#if defined(__aarch64__)
[[nodiscard]] const Table& neon_table();
#endif

}  // namespace outrider::kernels
