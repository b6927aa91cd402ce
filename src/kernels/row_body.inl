// Operations on single rows, written once for every path's `Vec`. Included inside the unnamed namespace of one path.
// Sums run in an order that depends on the length alone.

// The first `count` floats of p, zeros after.
OUTRIDER_INLINE Vec load_part(const float* p, std::int64_t count) {
    alignas(64) float lanes[Vec::kLanes] = {};
    std::memcpy(lanes, p, static_cast<std::size_t>(count) * sizeof(float));
    return Vec::load(lanes);
}

OUTRIDER_INLINE void store_part(Vec v, float* p, std::int64_t count) {
    alignas(64) float lanes[Vec::kLanes];
    v.store(lanes);
    std::memcpy(p, lanes, static_cast<std::size_t>(count) * sizeof(float));
}

// Lanes added pairwise, halves first.
OUTRIDER_INLINE float reduce_add(Vec v) {
    alignas(64) float lanes[Vec::kLanes];
    v.store(lanes);
    OUTRIDER_UNROLL
    for (int half = Vec::kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

// e^x by Cody-Waite reduction and a polynomial of degree 6 (Cephes' expf); relative error below 2e-7, 0 below -87.3,
// infinite above 88.4. NaN stays NaN.
OUTRIDER_INLINE Vec exp(Vec x) {
    const Vec clamped = Vec::max(Vec::set1(-87.33654F), Vec::min(Vec::set1(88.37626F), x));
    const Vec n = Vec::round(clamped * Vec::set1(1.44269504F));
    Vec r = Vec::fma(n, Vec::set1(-0.693359375F), clamped);
    r = Vec::fma(n, Vec::set1(2.12194440e-4F), r);
    Vec p = Vec::set1(1.9875691500e-4F);
    p = Vec::fma(p, r, Vec::set1(1.3981999507e-3F));
    p = Vec::fma(p, r, Vec::set1(8.3334519073e-3F));
    p = Vec::fma(p, r, Vec::set1(4.1665795894e-2F));
    p = Vec::fma(p, r, Vec::set1(1.6666665459e-1F));
    p = Vec::fma(p, r, Vec::set1(5.0000001201e-1F));
    p = Vec::fma(p, r * r, r) + Vec::set1(1.0F);
    return Vec::zero_below(x, -87.33654F, p * Vec::power_of_two(n));
}

void rms_norm_row(const float* x, std::int64_t n, const float* weight, float eps, float* y) {
    constexpr std::int64_t kStep = Vec::kLanes;
    Vec squares[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
    std::int64_t i = 0;
    for (; i + 4 * kStep <= n; i += 4 * kStep)
        OUTRIDER_UNROLL
        for (int j = 0; j < 4; ++j) {
            const Vec v = Vec::load(x + i + j * kStep);
            squares[j] = Vec::fma(v, v, squares[j]);
        }
    for (; i < n; i += kStep) {
        const Vec v = n - i >= kStep ? Vec::load(x + i) : load_part(x + i, n - i);
        squares[0] = Vec::fma(v, v, squares[0]);
    }
    const float sum = reduce_add((squares[0] + squares[1]) + (squares[2] + squares[3]));
    const Vec scale = Vec::set1(1.0F / std::sqrt(sum / static_cast<float>(n) + eps));
    for (i = 0; i + kStep <= n; i += kStep) (Vec::load(x + i) * scale * Vec::load(weight + i)).store(y + i);
    if (i < n) store_part(load_part(x + i, n - i) * scale * load_part(weight + i, n - i), y + i, n - i);
}

OUTRIDER_INLINE Vec silu_times(Vec gate, Vec up) {
    // At -88 the divisor is 1.7e38: the quotient is 0 to float precision of anything it is added to.
    return gate / (Vec::set1(1.0F) + exp(Vec::min(Vec::set1(88.0F), Vec::zero() - gate))) * up;
}

void silu_gate_row(const float* gate, const float* up, std::int64_t n, float* y) {
    constexpr std::int64_t kStep = Vec::kLanes;
    std::int64_t i = 0;
    for (; i + kStep <= n; i += kStep) silu_times(Vec::load(gate + i), Vec::load(up + i)).store(y + i);
    if (i < n) store_part(silu_times(load_part(gate + i, n - i), load_part(up + i, n - i)), y + i, n - i);
}
