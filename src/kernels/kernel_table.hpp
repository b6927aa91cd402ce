// The kernels of one vector path behind function pointers, and the views they work on. Internal.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/attention.hpp"
#include "kernels/isa.hpp"
#include "kernels/packed_linear.hpp"

namespace outrider::kernels {

inline constexpr std::int64_t kPanel = PackedLinear::kPanel;
inline constexpr std::size_t kFormats = static_cast<std::size_t>(WeightFormat::q8_planes) + 1;

/// The low plane of q8_planes stands behind all panels, in groups of neighbouring panels: [group][block][panel of it]
/// blocks of kLowBytes. Who reads few blocks of all panels reads runs of memory that are long enough for it.
inline constexpr std::int64_t kLowGroup = 32, kLowBytes = 256, kLowStep = kLowGroup * kLowBytes;  // from block to block
[[nodiscard]] constexpr std::int64_t low_at(std::int64_t panel, std::int64_t blocks) {
    return panel / kLowGroup * blocks * kLowStep + panel % kLowGroup * kLowBytes;
}

/// What a multiply of some panels of one matrix needs.
struct MultiplyArgs {
    const std::byte* panels = nullptr;  ///< panel 0 of the matrix
    std::int64_t panel_bytes = 0;
    const std::byte* low = nullptr;   ///< the low plane of q8_planes
    std::int64_t begin = 0, end = 0;  ///< panels to compute
    std::int64_t out = 0;             ///< outputs of the matrix; the last panel may be narrower than 16
    std::int64_t blocks = 0;          ///< padded in / 32
    std::int64_t rows = 0;
    const float* floats = nullptr;  ///< rows as PackedRows lays them out: floats, or pairs, or bytes and scales
    const std::uint32_t* pairs = nullptr;
    const std::int8_t* bytes = nullptr;
    const RowScale* scales = nullptr;
    float* y = nullptr;  ///< output 0 of row 0
    std::int64_t ldy = 0;
    bool add = false;
};

/// What a register tile needs: one panel of 16 outputs, some neighbouring rows of one group.
struct TileArgs {
    const std::byte* panel = nullptr;
    const std::byte* low = nullptr;        ///< of q8_planes: block 0 in the low plane; a block advances by kLowStep
    const std::byte* low_ahead = nullptr;  ///< the same of a panel that is asked for
    std::int64_t blocks = 0;
    const float* floats = nullptr;         ///< first row of the tile at k = 0; k advances by `group` floats
    const std::uint32_t* pairs = nullptr;  ///< first row at block 0; a block advances by 16 `group`
    const std::int8_t* bytes = nullptr;    ///< first row at block 0; a block advances by 32 `group`
    const RowScale* scales = nullptr;      ///< first row at block 0; a block advances by `group`
    std::int64_t group = 0;                ///< rows of the group
    float* y = nullptr;                    ///< first row, first output
    std::int64_t ldy = 0;
    int width = 0;  ///< outputs to store, 1 to 16
    bool add = false;
};
using Tile = void (*)(const TileArgs&);

/// Most queries that score_panels takes at once.
inline constexpr int kScoreQueries = 12;

/// Where the keys or values at hand end, and what is read behind them, so that its beginning is asked for in time:
/// caches of short texts are too short for the processor's own prefetching. Nothing where `next` is not set.
struct ReadNext {
    const void* end = nullptr;
    const void* next = nullptr;
};

/// Queries of one KV head times the keys of neighbouring panels.
struct ScoreArgs {
    CacheFormat format = CacheFormat::f32;
    const void* keys = nullptr;  ///< [panels][head_dim][16]
    std::int64_t panels = 0, head_dim = 0;
    const float* q = nullptr;  ///< [head_dim][kScoreQueries]
    int queries = 0;           ///< 1 to kScoreQueries
    float* scores = nullptr;   ///< [queries][16 panels], `stride` floats from one query to the next
    std::int64_t stride = 0;
    ReadNext then = {};
};

/// Values of one KV head, weighted and summed in the order of their positions for some queries. A path may take two
/// positions at once: a row's calls but the last are of an even number.
struct MixArgs {
    CacheFormat format = CacheFormat::f32;
    const void* values = nullptr;  ///< slot 0 of the KV head
    std::int64_t slot_stride = 0;  ///< in elements
    std::int64_t head_dim = 0;
    std::int64_t first = 0;               ///< the positions' slots are first, first + 1, ...
    const std::int32_t* slots = nullptr;  ///< or these, where it is set
    std::int64_t positions = 0;
    float* weights = nullptr;  ///< [queries][positions], `stride` floats from one query to the next; may be overwritten
    std::int64_t stride = 0;
    int queries = 0;
    float* const* out = nullptr;     ///< [head_dim] of each query
    bool resume = false;             ///< sums go on from what out holds
    const float* factors = nullptr;  ///< where set, the sums are multiplied by the query's own at the end
    ReadNext then = {};
};

using Multiply = void (*)(const MultiplyArgs&);

/// What bounds of the outputs of some panels need: panels of q8_planes, rows as in MultiplyArgs.
struct BoundArgs {
    const std::byte* panels = nullptr;  ///< panel 0 of the matrix
    std::int64_t panel_bytes = 0;
    const std::byte* low = nullptr;   ///< as in MultiplyArgs
    std::int64_t begin = 0, end = 0;  ///< panels
    std::int64_t out = 0;             ///< outputs of the matrix; the last panel may be narrower than 16
    std::int64_t blocks = 0;
    std::int64_t rows = 0;  ///< 1 to kChoiceRows
    const std::int8_t* bytes = nullptr;
    const RowScale* scales = nullptr;
    const unsigned char* both = nullptr;  ///< [blocks] whether the low plane is read too
    const float* norms = nullptr;         ///< [blocks][rows]: what is not read differs by at most norms |d| rho
    float* uppers = nullptr;              ///< [end - begin][rows], of each panel's outputs; infinity for NaN
    float* best = nullptr;                ///< [rows] the largest estimate
    std::int64_t* best_panel = nullptr;   ///< [rows] and its panel; -1: all are NaN
};

/// Most rows that outputs are bounded for at once.
inline constexpr std::int64_t kChoiceRows = 4;

/// The multiplies of the quantised formats.
struct IntegerKernels {
    Multiply q4_0 = nullptr, q4_1 = nullptr, q5_0 = nullptr, q5_1 = nullptr, q8_0 = nullptr;
    Multiply q4_k = nullptr, q5_k = nullptr, q6_k = nullptr, q8_planes = nullptr;
    void (*bound)(const BoundArgs&) = nullptr;  ///< of outputs of q8_planes; null where there is none
};

/// One path. Every pointer but round_pairs and bound is set.
struct Table {
    Isa isa = Isa::scalar;
    std::array<Multiply, kFormats> multiply{};  ///< by WeightFormat
    void (*bound)(const BoundArgs&) = nullptr;
    /// x [32 blocks] to int8: block b at q + b * q_stride, its scales at scales[b * scale_stride].
    void (*quantise_row)(const float* x, std::int64_t blocks, std::int8_t* q, std::int64_t q_stride, RowScale* scales,
                         std::int64_t scale_stride) = nullptr;
    /// x [32 blocks] to bf16 pairs, k even in the low half: the 16 pairs of block b at pairs + b * stride. Only where
    /// bf16 weights meet rows of bf16, else null.
    void (*round_pairs)(const float* x, std::int64_t blocks, std::uint32_t* pairs, std::int64_t stride) = nullptr;
    void (*rms_norm_row)(const float* x, std::int64_t n, const float* weight, float eps, float* y) = nullptr;
    void (*silu_gate_row)(const float* gate, const float* up, std::int64_t n, float* y) = nullptr;
    void (*gelu_gate_row)(const float* gate, const float* up, std::int64_t n, float* y) = nullptr;
    void (*soft_cap_row)(float* x, std::int64_t n, float cap) = nullptr;
    void (*scale_row)(float* x, std::int64_t n, float scale) = nullptr;
    void (*add_row)(float* x, const float* y, std::int64_t n) = nullptr;
    void (*exp_row)(const float* x, std::int64_t n, float* y) = nullptr;
    void (*softmax_row)(float* x, std::int64_t n) = nullptr;
    std::int64_t (*argmax_row)(const float* x, std::int64_t n) = nullptr;
    void (*rotate_heads)(float* x, std::int64_t heads, std::int64_t head_dim, const float* cosines,
                         const float* sines) = nullptr;
    CacheFormat narrow = CacheFormat::f16;  ///< see narrow_format
    void (*score_panels)(const ScoreArgs&) = nullptr;
    float (*exponentials)(float* x, std::int64_t n) = nullptr;  ///< x = e^(x - largest); returns the sum
    void (*mix_values)(const MixArgs&) = nullptr;
    void (*to_halves)(CacheFormat format, const float* x, std::int64_t n, std::uint16_t* halves) = nullptr;
};

/// Bytes of a packed panel for `blocks` blocks of 32 k.
[[nodiscard]] std::int64_t panel_bytes(WeightFormat format, std::int64_t blocks);

/// Sets the entries that a path's `Vec` serves, from the unnamed namespace it stands in.
#define OUTRIDER_ROW_KERNELS(t)                                                                               \
    (t).rms_norm_row = rms_norm_row, (t).silu_gate_row = silu_gate_row, (t).gelu_gate_row = gelu_gate_row,    \
    (t).soft_cap_row = soft_cap_row, (t).scale_row = scale_row, (t).add_row = add_row, (t).exp_row = exp_row, \
    (t).softmax_row = softmax_row, (t).argmax_row = argmax_row, (t).rotate_heads = rotate_heads,              \
    (t).exponentials = exponentials, (t).score_panels = score_panels, (t).mix_values = mix_values

[[nodiscard]] const Table& table(Isa isa);  ///< of an available path
[[nodiscard]] inline const Table& active_table() { return table(active_isa()); }

/// The multiply entries of a table, in WeightFormat's order.
[[nodiscard]] inline std::array<Multiply, kFormats> multiplies(Multiply f32, Multiply bf16, const IntegerKernels& by) {
    return {f32, bf16, by.q8_0, by.q4_0, by.q4_1, by.q5_0, by.q5_1, by.q8_0, by.q4_k, by.q5_k, by.q6_k, by.q8_planes};
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
[[nodiscard]] const Table& bf16_table();
void score_panels_bf16(const ScoreArgs& args);  ///< of the paths that multiply pairs of bf16; other formats as vnni
void mix_values_bf16(const MixArgs& args);
[[nodiscard]] const Table& amx_table();
#endif
#if defined(__aarch64__)
[[nodiscard]] const Table& neon_table();
#endif

}  // namespace outrider::kernels
