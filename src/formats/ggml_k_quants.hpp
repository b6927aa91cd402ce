// Blocks of 256 numbers with scales of their own inside (ggml's k-quants) and the non-linear 4-bit types, to f32.
#pragma once

#include <cstdint>

namespace outrider::detail {

// `p`: one block as in ggml-quants.c; `y`: its 256 floats (32 for iq4_nl).
void block_q2_k(const std::uint8_t* p, float* y);
void block_q3_k(const std::uint8_t* p, float* y);
void block_q4_k(const std::uint8_t* p, float* y);
void block_q5_k(const std::uint8_t* p, float* y);
void block_q6_k(const std::uint8_t* p, float* y);
void block_iq4_nl(const std::uint8_t* p, float* y);
void block_iq4_xs(const std::uint8_t* p, float* y);

}  // namespace outrider::detail
