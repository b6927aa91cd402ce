// Loops that the compiler vectorises once per instruction set, and short vectors of floats. A training step is bound by
// matrix products, so this is all the vector code that it needs.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <outrider/core/detail/exponential.hpp>
#include <outrider/core/detail/vector_level.hpp>

// A function that is compiled for each level of vector_level.hpp, which chooses one at every call:
//
//     OUTRIDER_VECTOR_LOOP(float, sum, (const float* x, std::int64_t n), (x, n)) { ... }
//
// In headers alone there is one, for the instructions that the host compiles with.
#if defined(OUTRIDER_COMPILED) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define OUTRIDER_VECTOR_LOOP(result, name, parameters, arguments)                     \
    result name parameters;                                                           \
    OUTRIDER_ALWAYS_INLINE result name##_on_any parameters;                           \
    __attribute__((target("arch=x86-64-v4"))) inline result name##_on_v4 parameters { \
        return name##_on_any arguments;                                               \
    }                                                                                 \
    __attribute__((target("arch=x86-64-v3"))) inline result name##_on_v3 parameters { \
        return name##_on_any arguments;                                               \
    }                                                                                 \
    inline result name##_on_portable parameters { return name##_on_any arguments; }   \
    result name parameters {                                                          \
        switch (::outrider::detail::vector_level()) {                                 \
            case ::outrider::detail::VectorLevel::v4: return name##_on_v4 arguments;  \
            case ::outrider::detail::VectorLevel::v3: return name##_on_v3 arguments;  \
            default: return name##_on_portable arguments;                             \
        }                                                                             \
    }                                                                                 \
    OUTRIDER_ALWAYS_INLINE result name##_on_any parameters
#else
#define OUTRIDER_VECTOR_LOOP(result, name, parameters, arguments) result name parameters
#endif

namespace outrider {

/// The bits of a bfloat16: the upper half of a float.
struct BFloat16Bits {
    std::uint16_t bits = 0;
};

namespace simd {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"

template <typename Real>
inline constexpr std::int64_t kLanes = 64 / sizeof(Real);

template <typename Real>
struct VectorOf {
    typedef Real type __attribute__((vector_size(64), aligned(4), may_alias));
};
template <typename Real>
using Vector = typename VectorOf<Real>::type;

typedef std::int32_t Ints __attribute__((vector_size(64)));
typedef std::uint32_t Words __attribute__((vector_size(64)));
typedef std::uint16_t Halves __attribute__((vector_size(32)));

template <typename Real>
OUTRIDER_ALWAYS_INLINE Vector<Real> get(const Real* p) {
    Vector<Real> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename Real>
OUTRIDER_ALWAYS_INLINE void put(Real* p, Vector<Real> v) {
    std::memcpy(p, &v, sizeof v);
}

template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE Real to_real(Stored x) {
    if constexpr (std::is_same_v<Stored, BFloat16Bits>) {
        const std::uint32_t bits = std::uint32_t{x.bits} << 16;
        float y;
        std::memcpy(&y, &bits, sizeof y);
        return y;
    } else {
        return x;
    }
}

/// Rounds to nearest even; NaN stays NaN.
template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE Stored to_stored(Real x) {
    if constexpr (std::is_same_v<Stored, BFloat16Bits>) {
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        if (x != x) return {0x7fc0};
        return {static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16)};
    } else {
        return x;
    }
}

template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE Vector<Real> load(const Stored* p) {
    if constexpr (std::is_same_v<Stored, BFloat16Bits>) {
        Halves h;
        std::memcpy(&h, p, sizeof h);
        const Words w = __builtin_convertvector(h, Words) << 16;
        Vector<float> v;
        std::memcpy(&v, &w, sizeof v);
        return v;
    } else {
        return get(p);
    }
}

/// Stores a vector, or its first `left` lanes.
template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE void store(Stored* p, Vector<Real> v, std::int64_t left) {
    if (left < kLanes<Real>) {
        for (std::int64_t j = 0; j < left; ++j) p[j] = to_stored<Stored, Real>(v[j]);
    } else if constexpr (std::is_same_v<Stored, BFloat16Bits>) {
        Words w;
        std::memcpy(&w, &v, sizeof w);
        w = (w + 0x7fffU + ((w >> 16) & 1U)) >> 16;
        const Halves h = __builtin_convertvector(w, Halves);
        std::memcpy(static_cast<void*>(p), &h, sizeof h);
    } else {
        put(p, v);
    }
}

/// For exponential.hpp.
struct FloatsArithmetic {
    OUTRIDER_ALWAYS_INLINE static Vector<float> set1(float x) { return Vector<float>{} + x; }
    OUTRIDER_ALWAYS_INLINE static Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) {
        return a * b + c;
    }
};

/// e^x. For float to a relative error of 3e-7, 0 below -87.
OUTRIDER_ALWAYS_INLINE Vector<float> exp(Vector<float> x) {
    const Vector<float> low = Vector<float>{} - 87.0F, high = Vector<float>{} + 88.0F;
    const auto vanishes = x < low;
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Vector<float> n = (x * 1.44269504F + 12582912.0F) - 12582912.0F;
    const Vector<float> r = detail::exp_remainder<FloatsArithmetic>(x, n);
    const Vector<float> p = detail::exp_polynomial<FloatsArithmetic>(r) * (r * r) + r + 1.0F;
    const Ints bits = (__builtin_convertvector(n, Ints) + 127) << 23;
    Vector<float> scale;
    std::memcpy(&scale, &bits, sizeof scale);
    const Vector<float> zero{};
    return vanishes ? zero : p * scale;
}

OUTRIDER_ALWAYS_INLINE Vector<double> exp(Vector<double> x) {
    for (int i = 0; i < 8; ++i) x[i] = std::exp(x[i]);
    return x;
}

#pragma GCC diagnostic pop

}  // namespace simd
}  // namespace outrider
