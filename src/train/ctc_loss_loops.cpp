#include "ctc_loss_loops.hpp"

#include <outrider/core/detail/vector_loops.hpp>

namespace outrider {

namespace {

template <typename Real>
OUTRIDER_ALWAYS_INLINE void normalisers_body(const Real* a, std::int64_t T, const Real* s, std::int64_t P,
                                             std::int64_t padded, Real* z) {
    using V = simd::Vector<Real>;
    constexpr std::int64_t L = simd::kLanes<Real>;
    for (std::int64_t t = 0; t < T; ++t)
        for (std::int64_t l = 0; l < P; ++l) {
            V sum{}, more{};
            for (std::int64_t c = 0; c + 2 * L <= padded; c += 2 * L) {
                sum += simd::get(a + t * padded + c) * simd::get(s + l * padded + c);
                more += simd::get(a + t * padded + c + L) * simd::get(s + l * padded + c + L);
            }
            sum += more;
            Real total = 0;
            for (std::int64_t j = 0; j < L; ++j) total += sum[j];
            z[t * P + l] = total;
        }
}

template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE void gradients_body(const Real* a, std::int64_t T, const Real* s, std::int64_t P,
                                           std::int64_t count, std::int64_t padded, const Real* g, Stored* d_a,
                                           Stored* d_s) {
    using V = simd::Vector<Real>;
    constexpr std::int64_t L = simd::kLanes<Real>;
    for (std::int64_t c = 0; c < count; c += L) {
        V row[kMaxPrefixes], sum[kMaxPrefixes];
        for (std::int64_t l = 0; l < P; ++l) row[l] = simd::get(s + l * padded + c), sum[l] = V{};
        const std::int64_t left = count - c;
        for (std::int64_t t = 0; t < T; ++t) {
            const V x = simd::get(a + t * padded + c);
            V y{};
            for (std::int64_t l = 0; l < P; ++l) {
                y += g[t * P + l] * row[l];
                sum[l] += g[t * P + l] * x;
            }
            simd::store<Stored, Real>(d_a + t * count + c, x * y, left);
        }
        if (d_s)
            for (std::int64_t l = 0; l < P; ++l) simd::store<Stored, Real>(d_s + l * count + c, row[l] * sum[l], left);
    }
}

}  // namespace

// The vector paths of the loops; see vector_loops.hpp.
OUTRIDER_VECTOR_LOOP(void, normalisers,
                     (const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t n, float* z),
                     (a, T, s, P, n, z)) {
    normalisers_body(a, T, s, P, n, z);
}
OUTRIDER_VECTOR_LOOP(void, normalisers,
                     (const double* a, std::int64_t T, const double* s, std::int64_t P, std::int64_t n, double* z),
                     (a, T, s, P, n, z)) {
    normalisers_body(a, T, s, P, n, z);
}
OUTRIDER_VECTOR_LOOP(void, gradients,
                     (const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t n, std::int64_t p,
                      const float* g, BFloat16Bits* x, BFloat16Bits* y),
                     (a, T, s, P, n, p, g, x, y)) {
    gradients_body(a, T, s, P, n, p, g, x, y);
}
OUTRIDER_VECTOR_LOOP(void, gradients,
                     (const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t n, std::int64_t p,
                      const float* g, float* x, float* y),
                     (a, T, s, P, n, p, g, x, y)) {
    gradients_body(a, T, s, P, n, p, g, x, y);
}
OUTRIDER_VECTOR_LOOP(void, gradients,
                     (const double* a, std::int64_t T, const double* s, std::int64_t P, std::int64_t n, std::int64_t p,
                      const double* g, double* x, double* y),
                     (a, T, s, P, n, p, g, x, y)) {
    gradients_body(a, T, s, P, n, p, g, x, y);
}

}  // namespace outrider
