// The loops over columns of CTC's loss, vectorised: what the recursion of an anchor needs of its rows.
#pragma once

#include <cstdint>

#include "exp_rows.hpp"

namespace outrider {

/// Most prefix rows of an anchor.
inline constexpr std::int64_t kMaxPrefixes = 16;

/// z[t * P + l] = sum_c a[t][c] s[l][c], for rows of `padded` columns.
void normalisers(const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t padded, float* z);
void normalisers(const double* a, std::int64_t T, const double* s, std::int64_t P, std::int64_t padded, double* z);

/// d_a[t][c] = a[t][c] sum_l g[t][l] s[l][c],  d_s[l][c] = s[l][c] sum_t g[t][l] a[t][c] for `count` of `padded`
/// columns; d_s may be null. What is stored has rows of `count`.
void gradients(const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t count, std::int64_t padded,
               const float* g, BFloat16Bits* d_a, BFloat16Bits* d_s);
void gradients(const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t count, std::int64_t padded,
               const float* g, float* d_a, float* d_s);
void gradients(const double* a, std::int64_t T, const double* s, std::int64_t P, std::int64_t count,
               std::int64_t padded, const double* g, double* d_a, double* d_s);

}  // namespace outrider
