// Packing of weights into panels of 16 outputs. Internal.
//
// A panel holds 16 outputs for all k. Quantised formats keep two streams in it: first the integers of all blocks, then
// the scales of all blocks, so that 64-byte loads stay aligned.
//
//   f32          [k][16] floats
//   bf16         [k / 2][16][2] halves
//   q4_0, q4_1   a block of 32 k: [4][16][4] bytes; byte (s, column, i) holds k = 4s + i in its low and k = 16 + 4s + i
//                in its high nibble, which is the file's own byte 4s + i; scales d [16], and for q4_1 m [16], as halves
//   q5_0, q5_1   as those, then [16][4] bytes of fifth bits: bit s of byte (column, i) belongs to k = 4s + i
//   q4_k, q5_k   values as q4_1 and q5_1; scales of 8 blocks: d [16] and dmin [16] as halves, then for each block the
//                6-bit scale [16] and minimum [16] as bytes
//   q6_k         nibbles, then [2][16][4] bytes of high bits: bits 2 (s % 4) of byte (s / 4, column, i); scales of 8
//                blocks: d [16] as halves, then for each block the signed byte scales of its halves [2][16]
//   q8_0, int8   a block of 32 k: [8][16][4] bytes of weight + 128, k = 4s + i; scales d [16] as halves
//   q8_planes    rho [16] floats; the high nibbles of weight + 128, as q4_0 stores its own; scales d [16] as halves.
//                Behind all panels the low nibbles l (kernel_table.hpp, low_at). rho: the largest Euclidean norm of
//                l - 7.5 over the output's blocks
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_linear.hpp"

namespace outrider::kernels {

/// Sizes of one block of 32 k in a panel.
struct PanelShape {
    std::int64_t values = 0;  ///< bytes of the first stream
    std::int64_t scales = 0;  ///< bytes of the second stream
};
[[nodiscard]] PanelShape panel_shape(WeightFormat format);

/// Packs `columns` rows (1 to 16) of `in` floats, `in` apart, into a zeroed panel of `blocks` blocks; `low`: its
/// first block in the low plane, of q8_planes.
void pack_floats(WeightFormat format, const float* weights, std::int64_t columns, std::int64_t in, std::int64_t blocks,
                 std::byte* panel, std::byte* low);

/// The same from ggml blocks; `weights` holds whole rows of blocks.
void pack_file_blocks(WeightFormat format, const std::byte* weights, std::int64_t columns, std::int64_t in,
                      std::int64_t blocks, std::byte* panel, std::byte* low);

}  // namespace outrider::kernels
