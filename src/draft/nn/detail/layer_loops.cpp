// Loops for bfloat16 and float32 on the CPU, with derivatives of their own: what training's speed needs.
#include <outrider/draft/nn/detail/layer_loops.hpp>

#include <cmath>

#include <outrider/core/detail/vector_loops.hpp>
#include <outrider/draft/nn/detail/attention.hpp>

namespace outrider::detail {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool has_loops(const at::Tensor& x) {
    return x.is_cpu() && (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat);
}

template <typename Stored>
const Stored* in(const at::Tensor& x) {
    return static_cast<const Stored*>(x.const_data_ptr());
}
template <typename Stored>
Stored* out(at::Tensor& x) {
    return static_cast<Stored*>(x.mutable_data_ptr());
}

/// Calls f with a null pointer of the type that x stores.
template <typename F>
void with_stored(const at::Tensor& x, F&& f) {
    if (x.scalar_type() == at::kBFloat16)
        f(static_cast<BFloat16Bits*>(nullptr));
    else
        f(static_cast<float*>(nullptr));
}

using simd::get;
using simd::load;
using simd::store;
using Lanes = simd::Vector<float>;
constexpr std::int64_t kWide = simd::kLanes<float>;

OUTRIDER_ALWAYS_INLINE float sum_of(Lanes v) {
    float total = 0;
    for (std::int64_t j = 0; j < kWide; ++j) total += v[j];
    return total;
}

// ---- RMS norm. Rows of float32, width a multiple of 16.

template <typename Stored>
OUTRIDER_ALWAYS_INLINE void norm_body(const float* x, const float* w, float eps, std::int64_t rows, std::int64_t n,
                                      Stored* y, float* rate) {
    for (std::int64_t r = 0; r < rows; ++r, x += n, y += n) {
        Lanes square{};
        for (std::int64_t i = 0; i < n; i += kWide) square += get(x + i) * get(x + i);
        rate[r] = 1.0F / __builtin_sqrtf(sum_of(square) / static_cast<float>(n) + eps);
        for (std::int64_t i = 0; i < n; i += kWide)
            store<Stored, float>(y + i, get(x + i) * get(w + i) * rate[r], kWide);
    }
}

template <typename Stored>
OUTRIDER_ALWAYS_INLINE void norm_back_body(const float* x, const float* w, const float* rate, const Stored* dy,
                                           std::int64_t rows, std::int64_t n, float* dx, float* dw) {
    for (std::int64_t r = 0; r < rows; ++r, x += n, dy += n, dx += n) {
        Lanes dot{};
        for (std::int64_t i = 0; i < n; i += kWide) dot += load<Stored, float>(dy + i) * get(w + i) * get(x + i);
        const float pull = sum_of(dot) / static_cast<float>(n) * rate[r] * rate[r];
        for (std::int64_t i = 0; i < n; i += kWide) {
            const Lanes g = load<Stored, float>(dy + i), v = get(x + i);
            simd::put(dx + i, (g * get(w + i) - v * pull) * rate[r]);
            simd::put(dw + i, get(dw + i) + g * v * rate[r]);
        }
    }
}

OUTRIDER_VECTOR_LOOP(void, norm,
                     (const float* x, const float* w, float e, std::int64_t r, std::int64_t n, BFloat16Bits* y,
                      float* s),
                     (x, w, e, r, n, y, s)) {
    norm_body(x, w, e, r, n, y, s);
}
OUTRIDER_VECTOR_LOOP(void, norm,
                     (const float* x, const float* w, float e, std::int64_t r, std::int64_t n, float* y, float* s),
                     (x, w, e, r, n, y, s)) {
    norm_body(x, w, e, r, n, y, s);
}
OUTRIDER_VECTOR_LOOP(void, norm_back,
                     (const float* x, const float* w, const float* s, const BFloat16Bits* g, std::int64_t r,
                      std::int64_t n, float* dx, float* dw),
                     (x, w, s, g, r, n, dx, dw)) {
    norm_back_body(x, w, s, g, r, n, dx, dw);
}
OUTRIDER_VECTOR_LOOP(void, norm_back,
                     (const float* x, const float* w, const float* s, const float* g, std::int64_t r, std::int64_t n,
                      float* dx, float* dw),
                     (x, w, s, g, r, n, dx, dw)) {
    norm_back_body(x, w, s, g, r, n, dx, dw);
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& x_in, const at::Tensor& weight_in, double eps,
                              at::ScalarType type) {
        const at::Tensor x = x_in.contiguous(), weight = weight_in.contiguous();
        at::Tensor y = at::empty(x.sizes(), x.options().dtype(type)), rate = at::empty({x.size(0)}, x.options());
        with_stored(y, [&]<typename S>(S*) {
            norm(in<float>(x), in<float>(weight), static_cast<float>(eps), x.size(0), x.size(1), out<S>(y),
                 out<float>(rate));
        });
        context->save_for_backward({x, weight, rate});
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor dy = outputs[0].contiguous();
        at::Tensor dx = at::empty_like(saved[0]), dw = at::zeros_like(saved[1]);
        with_stored(dy, [&]<typename S>(S*) {
            norm_back(in<float>(saved[0]), in<float>(saved[1]), in<float>(saved[2]), in<S>(dy), saved[0].size(0),
                      saved[0].size(1), out<float>(dx), out<float>(dw));
        });
        return {dx, dw, at::Tensor{}, at::Tensor{}};
    }
};

// ---- Gated SiLU: rows of 2 I, I a multiple of 16.

template <typename Stored>
OUTRIDER_ALWAYS_INLINE void gate_body(const Stored* x, std::int64_t rows, std::int64_t n, Stored* y) {
    for (std::int64_t r = 0; r < rows; ++r, x += 2 * n, y += n)
        for (std::int64_t i = 0; i < n; i += kWide) {
            const Lanes g = load<Stored, float>(x + i);
            store<Stored, float>(y + i, g / (1.0F + simd::exp(-g)) * load<Stored, float>(x + n + i), kWide);
        }
}

template <typename Stored>
OUTRIDER_ALWAYS_INLINE void gate_back_body(const Stored* x, const Stored* dy, std::int64_t rows, std::int64_t n,
                                           Stored* dx) {
    for (std::int64_t r = 0; r < rows; ++r, x += 2 * n, dy += n, dx += 2 * n)
        for (std::int64_t i = 0; i < n; i += kWide) {
            const Lanes g = load<Stored, float>(x + i), u = load<Stored, float>(x + n + i),
                        d = load<Stored, float>(dy + i);
            const Lanes s = 1.0F / (1.0F + simd::exp(-g));
            store<Stored, float>(dx + i, d * u * s * (1.0F + g * (1.0F - s)), kWide);
            store<Stored, float>(dx + n + i, d * g * s, kWide);
        }
}

OUTRIDER_VECTOR_LOOP(void, gate, (const BFloat16Bits* x, std::int64_t r, std::int64_t n, BFloat16Bits* y),
                     (x, r, n, y)) {
    gate_body(x, r, n, y);
}
OUTRIDER_VECTOR_LOOP(void, gate, (const float* x, std::int64_t r, std::int64_t n, float* y), (x, r, n, y)) {
    gate_body(x, r, n, y);
}
OUTRIDER_VECTOR_LOOP(void, gate_back,
                     (const BFloat16Bits* x, const BFloat16Bits* g, std::int64_t r, std::int64_t n, BFloat16Bits* dx),
                     (x, g, r, n, dx)) {
    gate_back_body(x, g, r, n, dx);
}
OUTRIDER_VECTOR_LOOP(void, gate_back, (const float* x, const float* g, std::int64_t r, std::int64_t n, float* dx),
                     (x, g, r, n, dx)) {
    gate_back_body(x, g, r, n, dx);
}

struct SiluGate : torch::autograd::Function<SiluGate> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& x_in) {
        const at::Tensor x = x_in.contiguous();
        at::Tensor y = at::empty({x.size(0), x.size(1) / 2}, x.options());
        with_stored(x, [&]<typename S>(S*) { gate(in<S>(x), x.size(0), y.size(1), out<S>(y)); });
        context->save_for_backward({x});
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const at::Tensor x = context->get_saved_variables()[0], dy = outputs[0].contiguous();
        at::Tensor dx = at::empty_like(x);
        with_stored(x, [&]<typename S>(S*) { gate_back(in<S>(x), in<S>(dy), x.size(0), dy.size(1), out<S>(dx)); });
        return {dx};
    }
};

// ---- Softmax of a row in two pieces: n scores of the context (of L, the rest becomes 0) and T own scores.

template <typename Stored>
OUTRIDER_ALWAYS_INLINE void softmax_body(Stored* context, std::int64_t n, std::int64_t L, Stored* own, std::int64_t T,
                                         float scale, float* work) {
    for (std::int64_t i = 0; i < n; ++i) work[i] = simd::to_real<Stored, float>(context[i]);
    for (std::int64_t t = 0; t < T; ++t) work[n + t] = simd::to_real<Stored, float>(own[t]);
    const std::int64_t count = n + T, padded = (count + kWide - 1) / kWide * kWide;
    for (std::int64_t i = count; i < padded; ++i) work[i] = -3e38F;
    Lanes top = get(work);
    for (std::int64_t i = kWide; i < padded; i += kWide) top = get(work + i) > top ? get(work + i) : top;
    float highest = top[0];
    for (std::int64_t j = 1; j < kWide; ++j) highest = top[j] > highest ? top[j] : highest;
    Lanes sum{};
    for (std::int64_t i = 0; i < padded; i += kWide) {
        const Lanes e = simd::exp((get(work + i) - highest) * scale);
        simd::put(work + i, e);
        sum += e;
    }
    const float share = 1.0F / sum_of(sum);
    for (std::int64_t i = 0; i < n; ++i) context[i] = simd::to_stored<Stored, float>(work[i] * share);
    for (std::int64_t i = n; i < L; ++i) context[i] = Stored{};
    for (std::int64_t t = 0; t < T; ++t) own[t] = simd::to_stored<Stored, float>(work[n + t] * share);
}

/// d = p (d - sum p d) scale, over both pieces.
template <typename Stored>
OUTRIDER_ALWAYS_INLINE void softmax_back_body(const Stored* p, Stored* d, std::int64_t L, const Stored* p_own,
                                              Stored* d_own, std::int64_t T, float scale) {
    float dot = 0;
    Lanes sum{};
    std::int64_t i = 0;
    for (; i + kWide <= L; i += kWide) sum += load<Stored, float>(p + i) * load<Stored, float>(d + i);
    for (std::int64_t j = i; j < L; ++j) dot += simd::to_real<Stored, float>(p[j]) * simd::to_real<Stored, float>(d[j]);
    for (std::int64_t t = 0; t < T; ++t)
        dot += simd::to_real<Stored, float>(p_own[t]) * simd::to_real<Stored, float>(d_own[t]);
    dot += sum_of(sum);
    for (i = 0; i + kWide <= L; i += kWide)
        store<Stored, float>(d + i, load<Stored, float>(p + i) * (load<Stored, float>(d + i) - dot) * scale, kWide);
    const auto one = [&](Stored weight, Stored& x) {
        x = simd::to_stored<Stored, float>(simd::to_real<Stored, float>(weight) *
                                           (simd::to_real<Stored, float>(x) - dot) * scale);
    };
    for (; i < L; ++i) one(p[i], d[i]);
    for (std::int64_t t = 0; t < T; ++t) one(p_own[t], d_own[t]);
}

/// Rows of one (key head, anchor): `rows` of them.
OUTRIDER_VECTOR_LOOP(void, softmax_rows,
                     (BFloat16Bits * c, std::int64_t rows, std::int64_t n, std::int64_t L, BFloat16Bits* o,
                      std::int64_t T, float s, float* w),
                     (c, rows, n, L, o, T, s, w)) {
    for (std::int64_t r = 0; r < rows; ++r) softmax_body(c + r * L, n, L, o + r * T, T, s, w);
}
OUTRIDER_VECTOR_LOOP(void, softmax_rows,
                     (float* c, std::int64_t rows, std::int64_t n, std::int64_t L, float* o, std::int64_t T, float s,
                      float* w),
                     (c, rows, n, L, o, T, s, w)) {
    for (std::int64_t r = 0; r < rows; ++r) softmax_body(c + r * L, n, L, o + r * T, T, s, w);
}
OUTRIDER_VECTOR_LOOP(void, softmax_back_rows,
                     (const BFloat16Bits* p, BFloat16Bits* d, std::int64_t rows, std::int64_t L, const BFloat16Bits* po,
                      BFloat16Bits* o, std::int64_t T, float s),
                     (p, d, rows, L, po, o, T, s)) {
    for (std::int64_t r = 0; r < rows; ++r) softmax_back_body(p + r * L, d + r * L, L, po + r * T, o + r * T, T, s);
}
OUTRIDER_VECTOR_LOOP(void, softmax_back_rows,
                     (const float* p, float* d, std::int64_t rows, std::int64_t L, const float* po, float* o,
                      std::int64_t T, float s),
                     (p, d, rows, L, po, o, T, s)) {
    for (std::int64_t r = 0; r < rows; ++r) softmax_back_body(p + r * L, d + r * L, L, po + r * T, o + r * T, T, s);
}

struct AnchorAttention : torch::autograd::Function<AnchorAttention> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& keys, const at::Tensor& values, const at::Tensor& committed) {
        const AnchorShape s = AnchorShape::of(q, k, keys);
        const float scale = 1.0F / std::sqrt(static_cast<float>(s.D));
        const at::Tensor q_head = s.by_head(q), q_anchor = s.by_anchor(q), k_own = s.frames(k), v_own = s.frames(v);
        at::Tensor p = at::bmm(q_head, keys.permute({1, 2, 0})).contiguous();
        at::Tensor p_own = at::bmm(q_anchor, k_own.transpose(1, 2)).contiguous();
        std::vector<float> work(static_cast<std::size_t>(s.L + s.T + kWide));
        const std::int64_t rows = s.T * s.G;
        with_stored(p, [&]<typename S>(S*) {
            for (std::int64_t h = 0; h < s.kv; ++h)
                for (std::int64_t m = 0; m < s.M; ++m)
                    softmax_rows(out<S>(p) + (h * s.M + m) * rows * s.L, rows,
                                 committed.const_data_ptr<std::int64_t>()[m], s.L,
                                 out<S>(p_own) + (m * s.kv + h) * rows * s.T, s.T, scale, work.data());
        });
        context->save_for_backward({q_head, q_anchor, k_own, v_own, keys, values, p, p_own});
        const at::Tensor mixed = s.joined(at::bmm(p, values.permute({1, 0, 2})), at::bmm(p_own, v_own));
        context->saved_data["T"] = s.T;
        return mixed.reshape({s.M * s.T, s.kv * s.G * s.D});
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor &q_head = saved[0], &q_anchor = saved[1], &k_own = saved[2], &v_own = saved[3],
                         &keys = saved[4], &values = saved[5], &p = saved[6], &p_own = saved[7];
        const std::int64_t T = context->saved_data["T"].toInt(), kv = keys.size(1), M = k_own.size(0) / kv;
        const AnchorShape s{M, T, kv, q_anchor.size(1) / T, keys.size(2), keys.size(0)};
        const float scale = 1.0F / std::sqrt(static_cast<float>(s.D));
        const at::Tensor d_head = s.by_head(outputs[0]), d_anchor = s.by_anchor(outputs[0]);
        at::Tensor d = at::bmm(d_head, values.permute({1, 2, 0})).contiguous();
        at::Tensor d_own = at::bmm(d_anchor, v_own.transpose(1, 2)).contiguous();
        const std::int64_t rows = s.T * s.G;
        with_stored(d, [&]<typename S>(S*) {
            for (std::int64_t h = 0; h < s.kv; ++h)
                for (std::int64_t m = 0; m < s.M; ++m)
                    softmax_back_rows(in<S>(p) + (h * s.M + m) * rows * s.L, out<S>(d) + (h * s.M + m) * rows * s.L,
                                      rows, s.L, in<S>(p_own) + (m * s.kv + h) * rows * s.T,
                                      out<S>(d_own) + (m * s.kv + h) * rows * s.T, s.T, scale);
        });
        const at::Tensor dq =
            s.joined(at::bmm(d, keys.permute({1, 0, 2})), at::bmm(d_own, k_own)).reshape({s.M, s.T, s.kv * s.G, s.D});
        return {dq,
                s.unframed(at::bmm(d_own.transpose(1, 2), q_anchor)),
                s.unframed(at::bmm(p_own.transpose(1, 2), d_anchor)),
                at::bmm(d.transpose(1, 2), q_head).permute({1, 0, 2}),
                at::bmm(p.transpose(1, 2), d_head).permute({1, 0, 2}),
                at::Tensor{}};
    }
};

// ---- Rotary positions, in place of four operations.

template <typename Stored>
OUTRIDER_ALWAYS_INLINE void rotate_body(const Stored* x, const float* cos, const float* sin, float sign,
                                        std::int64_t rows, std::int64_t heads, std::int64_t half, Stored* y) {
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t h = 0; h < heads; ++h, x += 2 * half, y += 2 * half)
            for (std::int64_t i = 0; i < half; i += kWide) {
                const Lanes a = load<Stored, float>(x + i), b = load<Stored, float>(x + half + i);
                const Lanes c = get(cos + r * half + i), s = get(sin + r * half + i) * sign;
                store<Stored, float>(y + i, a * c - b * s, kWide);
                store<Stored, float>(y + half + i, b * c + a * s, kWide);
            }
}

OUTRIDER_VECTOR_LOOP(void, rotate,
                     (const BFloat16Bits* x, const float* c, const float* s, float g, std::int64_t r, std::int64_t h,
                      std::int64_t d, BFloat16Bits* y),
                     (x, c, s, g, r, h, d, y)) {
    rotate_body(x, c, s, g, r, h, d, y);
}
OUTRIDER_VECTOR_LOOP(void, rotate,
                     (const float* x, const float* c, const float* s, float g, std::int64_t r, std::int64_t h,
                      std::int64_t d, float* y),
                     (x, c, s, g, r, h, d, y)) {
    rotate_body(x, c, s, g, r, h, d, y);
}

struct Rotate : torch::autograd::Function<Rotate> {
    static at::Tensor turn(const at::Tensor& x_in, const at::Tensor& cos, const at::Tensor& sin, float sign) {
        const at::Tensor x = x_in.contiguous();
        at::Tensor y = at::empty_like(x);
        with_stored(x, [&]<typename S>(S*) {
            rotate(in<S>(x), in<float>(cos), in<float>(sin), sign, x.size(0), x.size(1), x.size(2) / 2, out<S>(y));
        });
        return y;
    }
    static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cos,
                              const at::Tensor& sin) {
        context->save_for_backward({cos, sin});
        return turn(x, cos, sin, 1.0F);
    }
    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const variable_list saved = context->get_saved_variables();
        return {turn(outputs[0], saved[0], saved[1], -1.0F), at::Tensor{}, at::Tensor{}};
    }
};

struct MixedLinear : torch::autograd::Function<MixedLinear> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                              at::ScalarType compute) {
        const at::Tensor x_low = x.to(compute), w_low = weight.to(compute);
        context->save_for_backward({x_low, w_low});
        context->saved_data["x"] = static_cast<std::int64_t>(x.scalar_type());
        context->saved_data["w"] = static_cast<std::int64_t>(weight.scalar_type());
        return at::linear(x_low, w_low);
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const variable_list saved = context->get_saved_variables();
        const at::Tensor dy = outputs[0].to(saved[0].scalar_type());
        variable_list gradients(3);
        if (context->needs_input_grad(0))
            gradients[0] = dy.mm(saved[1]).to(static_cast<at::ScalarType>(context->saved_data["x"].toInt()));
        if (context->needs_input_grad(1))
            gradients[1] = dy.t().mm(saved[0]).to(static_cast<at::ScalarType>(context->saved_data["w"].toInt()));
        return gradients;
    }
};

}  // namespace

at::Tensor mixed_linear_training(const at::Tensor& x, const at::Tensor& weight, at::ScalarType compute) {
    return MixedLinear::apply(x, weight, compute);
}

at::Tensor loop_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, at::ScalarType type) {
    const bool fits = x.is_cpu() && x.scalar_type() == at::kFloat && x.size(-1) % kWide == 0 &&
                      (type == at::kFloat || type == at::kBFloat16);
    return fits ? RmsNorm::apply(x, weight, eps, type) : at::Tensor();
}

at::Tensor loop_silu_gate(const at::Tensor& x) {
    return has_loops(x) && x.size(-1) % (2 * kWide) == 0 ? SiluGate::apply(x) : at::Tensor();
}

at::Tensor loop_rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    return has_loops(x) && x.size(-1) % (2 * kWide) == 0 ? Rotate::apply(x, cos, sin) : at::Tensor();
}

at::Tensor loop_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& keys,
                          const at::Tensor& values, const at::Tensor& committed) {
    if (!has_loops(q) || keys.size(0) == 0) return {};
    return AnchorAttention::apply(q, k, v, keys, values, committed);
}

}  // namespace outrider::detail
