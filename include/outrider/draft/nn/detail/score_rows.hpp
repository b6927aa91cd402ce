// Rows of scores over a draft vocabulary: exponentials, and the largest of them. Vectorised; rows are padded to
// kRowPad.
#pragma once

#include <cstddef>
#include <cstdint>
#include <outrider/core/types.hpp>
#include <outrider/tree/tree_shape.hpp>
#include <span>

namespace outrider {

/// Rows are read and written in blocks of 16 floats, sums in pairs of blocks.
inline constexpr std::size_t kRowPad = 32;
[[nodiscard]] constexpr std::size_t padded_row(std::size_t columns) {
    return (columns + kRowPad - 1) / kRowPad * kRowPad;
}

/// In place: exp(x - max) of `count` values, zeros up to `padded`. Returns the maximum; NaN where a NaN or an infinity
/// is among them.
float exponentials(float* x, std::int64_t count, std::int64_t padded);

/// The first block of 16 from `begin` on that holds a value >= least, or `padded`.
[[nodiscard]] std::int64_t find_block(const float* q, std::int64_t begin, std::int64_t padded, float least);

/// In place: probabilities (softmax) of `count` scores, zeros up to `padded`. False, and all zero, where they hold a
/// NaN or an infinity: such a row says nothing.
bool probabilities(float* x, std::int64_t count, std::int64_t padded);

/// The `ranks` likeliest columns of a row of probabilities, falling; between equals the lower column. Zeros have none.
void rank_row(const float* q, std::span<const TokenId> vocabulary, std::size_t ranks, RankedTokens& ranked);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/score_rows-inl.hpp>
#endif
