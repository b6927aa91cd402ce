// e^x of floats, once for single numbers and for vectors of every kind: Cody and Waite's reduction and the polynomial
// of Cephes' expf. Who calls clamps x, rounds n, and multiplies by 2^n as its numbers allow.
#pragma once

#define OUTRIDER_ALWAYS_INLINE inline __attribute__((always_inline))

namespace outrider::detail {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors inside one function

/// The arithmetic of numbers that have operators: floats and the compiler's own vectors of them.
template <typename V>
struct PlainArithmetic {
    OUTRIDER_ALWAYS_INLINE static V set1(float x) { return V{} + x; }
    OUTRIDER_ALWAYS_INLINE static V fma(V a, V b, V c) { return a * b + c; }
};

/// r = x - n ln 2 for a whole number n.
template <typename Arithmetic, typename V>
OUTRIDER_ALWAYS_INLINE V exp_remainder(V x, V n) {
    const V r = Arithmetic::fma(n, Arithmetic::set1(-0.693359375F), x);
    return Arithmetic::fma(n, Arithmetic::set1(2.12194440e-4F), r);
}

/// p with e^r = 1 + r + r^2 p, to a relative error of 2e-7 for |r| <= 0.36.
template <typename Arithmetic, typename V>
OUTRIDER_ALWAYS_INLINE V exp_polynomial(V r) {
    V p = Arithmetic::set1(1.9875691500e-4F);
    p = Arithmetic::fma(p, r, Arithmetic::set1(1.3981999507e-3F));
    p = Arithmetic::fma(p, r, Arithmetic::set1(8.3334519073e-3F));
    p = Arithmetic::fma(p, r, Arithmetic::set1(4.1665795894e-2F));
    p = Arithmetic::fma(p, r, Arithmetic::set1(1.6666665459e-1F));
    return Arithmetic::fma(p, r, Arithmetic::set1(5.0000001201e-1F));
}

#pragma GCC diagnostic pop

}  // namespace outrider::detail
