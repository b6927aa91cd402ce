// e^x of floats, once for single numbers and for vectors of every kind: Cody and Waite's reduction and the polynomial
// of Cephes' expf. Who calls clamps x, rounds n, and multiplies by 2^n as its numbers allow.
#pragma once

#define OUTRIDER_ALWAYS_INLINE inline __attribute__((always_inline))

namespace outrider::detail {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors inside one function

/// What `Arithmetic` says of single floats: a number of equal lanes, and a b + c.
struct FloatArithmetic {
    OUTRIDER_ALWAYS_INLINE static float set1(float x) { return x; }
    OUTRIDER_ALWAYS_INLINE static float fma(float a, float b, float c) { return a * b + c; }
};

/// One lane or several.
template <typename Arithmetic>
using NumbersOf = decltype(Arithmetic::set1(0.0F));

/// r = x - n ln 2 for a whole number n.
template <typename Arithmetic>
OUTRIDER_ALWAYS_INLINE NumbersOf<Arithmetic> exp_remainder(NumbersOf<Arithmetic> x, NumbersOf<Arithmetic> n) {
    const auto r = Arithmetic::fma(n, Arithmetic::set1(-0.693359375F), x);
    return Arithmetic::fma(n, Arithmetic::set1(2.12194440e-4F), r);
}

/// p with e^r = 1 + r + r^2 p, to a relative error of 2e-7 for |r| <= 0.36.
template <typename Arithmetic>
OUTRIDER_ALWAYS_INLINE NumbersOf<Arithmetic> exp_polynomial(NumbersOf<Arithmetic> r) {
    auto p = Arithmetic::set1(1.9875691500e-4F);
    p = Arithmetic::fma(p, r, Arithmetic::set1(1.3981999507e-3F));
    p = Arithmetic::fma(p, r, Arithmetic::set1(8.3334519073e-3F));
    p = Arithmetic::fma(p, r, Arithmetic::set1(4.1665795894e-2F));
    p = Arithmetic::fma(p, r, Arithmetic::set1(1.6666665459e-1F));
    return Arithmetic::fma(p, r, Arithmetic::set1(5.0000001201e-1F));
}

#pragma GCC diagnostic pop

}  // namespace outrider::detail
