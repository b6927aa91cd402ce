#include "exp_rows.hpp"

#include <limits>

namespace outrider {

namespace {

template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE Real exp_scores_body(const Stored* row, std::int64_t count, std::int64_t padded, Real* out) {
    using V = simd::Vector<Real>;
    constexpr std::int64_t L = simd::kLanes<Real>;
    V top = V{} + std::numeric_limits<Real>::lowest();
    std::int64_t i = 0;
    for (; i + L <= count; i += L) {
        const V x = simd::load<Stored, Real>(row + i);
        simd::put(out + i, x);
        top = x > top ? x : top;
    }
    Real highest = std::numeric_limits<Real>::lowest();
    for (std::int64_t j = 0; j < L; ++j) highest = top[j] > highest ? top[j] : highest;
    for (; i < count; ++i) {
        out[i] = simd::to_real<Stored, Real>(row[i]);
        highest = out[i] > highest ? out[i] : highest;
    }
    for (std::int64_t j = 0; j < padded; j += L) simd::put(out + j, simd::exp(simd::get(out + j) - highest));
    for (; i < padded; ++i) out[i] = 0;
    return highest;
}

}  // namespace

OUTRIDER_VECTOR_LOOP(float, exp_scores, (const BFloat16Bits* row, std::int64_t count, std::int64_t padded, float* out),
                     (row, count, padded, out)) {
    return exp_scores_body(row, count, padded, out);
}
OUTRIDER_VECTOR_LOOP(float, exp_scores, (const float* row, std::int64_t count, std::int64_t padded, float* out),
                     (row, count, padded, out)) {
    return exp_scores_body(row, count, padded, out);
}
OUTRIDER_VECTOR_LOOP(double, exp_scores, (const double* row, std::int64_t count, std::int64_t padded, double* out),
                     (row, count, padded, out)) {
    return exp_scores_body(row, count, padded, out);
}

}  // namespace outrider
