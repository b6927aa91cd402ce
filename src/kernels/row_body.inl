// Operations on single rows, written once for every path's `Vec`. Included inside the unnamed namespace of one path.
// Sums run in an order that depends on the length alone.

// The first `count` floats of p, zeros after.
OUTRIDER_ALWAYS_INLINE Vec load_part(const float* p, std::int64_t count) {
    alignas(64) float lanes[Vec::kLanes] = {};
    std::memcpy(lanes, p, static_cast<std::size_t>(count) * sizeof(float));
    return Vec::load(lanes);
}

OUTRIDER_ALWAYS_INLINE void store_part(Vec v, float* p, std::int64_t count) {
    alignas(64) float lanes[Vec::kLanes];
    v.store(lanes);
    std::memcpy(p, lanes, static_cast<std::size_t>(count) * sizeof(float));
}

// Lanes added pairwise, halves first.
OUTRIDER_ALWAYS_INLINE float reduce_add(Vec v) {
    alignas(64) float lanes[Vec::kLanes];
    v.store(lanes);
    OUTRIDER_UNROLL
    for (int half = Vec::kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

// e^x to a relative error of 2e-7, 0 below -87.3, e^88.37 above that. NaN stays NaN.
OUTRIDER_ALWAYS_INLINE Vec exp(Vec x) {
    const Vec clamped = Vec::max(Vec::set1(-87.33654F), Vec::min(Vec::set1(88.37626F), x));
    const Vec n = Vec::round(clamped * Vec::set1(1.44269504F));
    const Vec r = outrider::detail::exp_remainder<Vec>(clamped, n);
    const Vec p = Vec::fma(outrider::detail::exp_polynomial<Vec>(r), r * r, r) + Vec::set1(1.0F);
    return Vec::zero_below(x, -87.33654F, p * Vec::power_of_two(n));
}

void rms_norm_row(const float* x, std::int64_t n, const float* weight, float eps, float* y) {
    constexpr std::int64_t kStep = Vec::kLanes;
    Vec squares[4] = {Vec::zero(), Vec::zero(), Vec::zero(), Vec::zero()};
    std::int64_t i = 0;
    for (; i + 4 * kStep <= n; i += 4 * kStep) OUTRIDER_UNROLL
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

OUTRIDER_ALWAYS_INLINE Vec silu_times(Vec gate, Vec up) {
    return gate / (Vec::set1(1.0F) + exp(Vec::zero() - gate)) * up;
}

void silu_gate_row(const float* gate, const float* up, std::int64_t n, float* y) {
    constexpr std::int64_t kStep = Vec::kLanes;
    std::int64_t i = 0;
    for (; i + kStep <= n; i += kStep) silu_times(Vec::load(gate + i), Vec::load(up + i)).store(y + i);
    if (i < n) store_part(silu_times(load_part(gate + i, n - i), load_part(up + i, n - i)), y + i, n - i);
}

// gelu by tanh, 0.5 g (1 + tanh(u)) with u = sqrt(2 / pi) (g + 0.044715 g^3), which is g / (1 + e^(-2 u)).
OUTRIDER_ALWAYS_INLINE Vec gelu_times(Vec gate, Vec up) {
    const Vec inner = Vec::fma(gate * gate, Vec::set1(0.044715F), Vec::set1(1.0F)) * gate;
    return gate / (Vec::set1(1.0F) + exp(inner * Vec::set1(-1.5957691216F))) * up;
}

void gelu_gate_row(const float* gate, const float* up, std::int64_t n, float* y) {
    constexpr std::int64_t kStep = Vec::kLanes;
    std::int64_t i = 0;
    for (; i + kStep <= n; i += kStep) gelu_times(Vec::load(gate + i), Vec::load(up + i)).store(y + i);
    if (i < n) store_part(gelu_times(load_part(gate + i, n - i), load_part(up + i, n - i)), y + i, n - i);
}

// x = cap tanh(x / cap), with tanh(u) = 1 - 2 / (e^(2 u) + 1).
void soft_cap_row(float* x, std::int64_t n, float cap) {
    const Vec twice = Vec::set1(2.0F / cap), one = Vec::set1(1.0F), two = Vec::set1(2.0F), most = Vec::set1(cap);
    const auto capped = [&](Vec v) { return (one - two / (exp(v * twice) + one)) * most; };
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) capped(Vec::load(x + i)).store(x + i);
    if (i < n) store_part(capped(load_part(x + i, n - i)), x + i, n - i);
}

void scale_row(float* x, std::int64_t n, float scale) {
    const Vec by = Vec::set1(scale);
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) (Vec::load(x + i) * by).store(x + i);
    for (; i < n; ++i) x[i] *= scale;
}

void add_row(float* x, const float* y, std::int64_t n) {
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) (Vec::load(x + i) + Vec::load(y + i)).store(x + i);
    for (; i < n; ++i) x[i] += y[i];
}

void exp_row(const float* x, std::int64_t n, float* y) {
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) exp(Vec::load(x + i)).store(y + i);
    if (i < n) store_part(exp(load_part(x + i, n - i)), y + i, n - i);
}

float largest(const float* x, std::int64_t n) {
    Vec most = Vec::set1(-std::numeric_limits<float>::infinity());
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) most = Vec::max(Vec::load(x + i), most);
    alignas(64) float lanes[Vec::kLanes];
    most.store(lanes);
    OUTRIDER_UNROLL
    for (int half = Vec::kLanes / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j) lanes[j] = lanes[j + half] > lanes[j] ? lanes[j + half] : lanes[j];
    float result = lanes[0];
    for (; i < n; ++i) result = x[i] > result ? x[i] : result;
    return result;
}

// x = e^(x - largest); returns the sum. Lane j sums the elements j, j + kLanes, ...; then the lanes are added.
float exponentials(float* x, std::int64_t n) {
    const Vec most = Vec::set1(largest(x, n));
    Vec sum = Vec::zero();
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
        const Vec e = exp(Vec::load(x + i) - most);
        e.store(x + i);
        sum = sum + e;
    }
    if (i < n) {
        store_part(exp(load_part(x + i, n - i) - most), x + i, n - i);
        sum = sum + load_part(x + i, n - i);
    }
    return reduce_add(sum);
}

void softmax_row(float* x, std::int64_t n) {
    const Vec inverse = Vec::set1(1.0F / exponentials(x, n));
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes) (Vec::load(x + i) * inverse).store(x + i);
    if (i < n) store_part(load_part(x + i, n - i) * inverse, x + i, n - i);
}

// The largest value first, then where it stands: both passes are bound by loads.
std::int64_t argmax_row(const float* x, std::int64_t n) {
    const float most = largest(x, n);
    std::int64_t i = 0;
    for (; i + Vec::kLanes <= n; i += Vec::kLanes)
        if (Vec::any_equal(Vec::load(x + i), most)) break;
    for (; i < n; ++i)
        if (x[i] == most) return i;
    return 0;  // all NaN
}

void rotate_heads(float* x, std::int64_t heads, std::int64_t head_dim, const float* cosines, const float* sines) {
    const std::int64_t half = head_dim / 2;
    for (std::int64_t h = 0; h < heads; ++h, x += head_dim) {
        std::int64_t i = 0;
        for (; i + Vec::kLanes <= half; i += Vec::kLanes) {
            const Vec a = Vec::load(x + i), b = Vec::load(x + half + i);
            const Vec c = Vec::load(cosines + i), s = Vec::load(sines + i);
            (a * c - b * s).store(x + i);
            (b * c + a * s).store(x + half + i);
        }
        for (; i < half; ++i) {
            const float a = x[i], b = x[half + i];
            x[i] = a * cosines[i] - b * sines[i];
            x[half + i] = b * cosines[i] + a * sines[i];
        }
    }
}
