// Exponentials of a row of scores, as every loss over the draft vocabulary needs them.
#pragma once

#include <cstdint>

#include <outrider/core/detail/vector_loops.hpp>

namespace outrider {

/// exp(row - max) into `out` [padded], zeros behind `count`. `padded`: a multiple of the vector length of Real, see
/// padded_scores. Returns the maximum. NaN in the row gives NaN somewhere in `out`.
float exp_scores(const BFloat16Bits* row, std::int64_t count, std::int64_t padded, float* out);
float exp_scores(const float* row, std::int64_t count, std::int64_t padded, float* out);
double exp_scores(const double* row, std::int64_t count, std::int64_t padded, double* out);

/// Length of a row of scratch: loops may take two vectors at a time.
template <typename Real>
[[nodiscard]] constexpr std::int64_t padded_scores(std::int64_t count) {
    constexpr std::int64_t step = 2 * simd::kLanes<Real>;
    return (count + step - 1) / step * step;
}

}  // namespace outrider
