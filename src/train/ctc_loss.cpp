// One anchor at a time: exponentials of frames and prefixes once, normalisers as a small product, the recursion in
// double, and both gradients in one pass over the columns.
#include <outrider/train/ctc_loss.hpp>

#include <cmath>
#include <limits>

#include <outrider/core/error.hpp>

#include "../vector_clones.hpp"
#include "exp_rows.hpp"

namespace outrider {

namespace {

constexpr std::int64_t kMaxPrefixes = 16;

/// z[t * P + l] = sum_c a[t][c] s[l][c].
template <typename Real>
OUTRIDER_INLINE void normalisers_body(const Real* a, std::int64_t T, const Real* s, std::int64_t P, std::int64_t padded,
                                      Real* z) {
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

/// d_a[t][c] = a[t][c] sum_l g[t][l] s[l][c],  d_s[l][c] = s[l][c] sum_t g[t][l] a[t][c]; d_s may be null.
template <typename Stored, typename Real>
OUTRIDER_INLINE void gradients_body(const Real* a, std::int64_t T, const Real* s, std::int64_t P, std::int64_t count,
                                    std::int64_t padded, const Real* g, Stored* d_a, Stored* d_s) {
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

// The vector paths of the loops; see vector_clones.hpp.
OUTRIDER_CLONES void normalisers(const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t n,
                                 float* z) {
    normalisers_body(a, T, s, P, n, z);
}
OUTRIDER_CLONES void normalisers(const double* a, std::int64_t T, const double* s, std::int64_t P, std::int64_t n,
                                 double* z) {
    normalisers_body(a, T, s, P, n, z);
}
OUTRIDER_CLONES void gradients(const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t n,
                               std::int64_t p, const float* g, BFloat16Bits* x, BFloat16Bits* y) {
    gradients_body(a, T, s, P, n, p, g, x, y);
}
OUTRIDER_CLONES void gradients(const float* a, std::int64_t T, const float* s, std::int64_t P, std::int64_t n,
                               std::int64_t p, const float* g, float* x, float* y) {
    gradients_body(a, T, s, P, n, p, g, x, y);
}
OUTRIDER_CLONES void gradients(const double* a, std::int64_t T, const double* s, std::int64_t P, std::int64_t n,
                               std::int64_t p, const double* g, double* x, double* y) {
    gradients_body(a, T, s, P, n, p, g, x, y);
}

/// Usable labels of an anchor: named ones, as long as T frames can hold them.
std::int64_t usable(const std::int32_t* labels, std::int64_t count, std::int64_t frames) {
    std::int64_t needed = 0;
    for (std::int64_t k = 0; k < count; ++k) {
        if (labels[k] < 0) return k;
        needed += 1 + (k > 0 && labels[k] == labels[k - 1]);
        if (needed > frames) return k;
    }
    return count;
}

/// What the loops over anchors share.
struct Shape {
    std::int64_t anchors = 0, frames = 0, labels = 0, prefixes = 0, columns = 0;
    bool conditioned = false;
    double scale = 0.0;  // 1 / sum of weights
};

template <typename Real>
double log_sigmoid(Real x) {
    const double v = static_cast<double>(x);
    return v < 0 ? v - std::log1p(std::exp(v)) : -std::log1p(std::exp(-v));
}

/// One thread's share of the anchors.
template <typename Stored, typename Real>
class Worker {
public:
    Worker(const Shape& shape, const CtcLossOptions& options)
        : shape_(shape),
          options_(options),
          padded_(padded_row<Real>(shape.columns)),
          a_(static_cast<std::size_t>(shape.frames * padded_)),
          s_(static_cast<std::size_t>(shape.prefixes * padded_), Real(1)),
          a_top_(static_cast<std::size_t>(shape.frames)),
          s_top_(static_cast<std::size_t>(shape.prefixes)),
          z_(static_cast<std::size_t>(shape.frames * shape.prefixes)),
          g_(z_.size()) {
        stats.nll.assign(static_cast<std::size_t>(shape.labels), 0.0);
        stats.count.assign(static_cast<std::size_t>(shape.labels), 0);
    }

    /// Rows of one anchor; gradients are written in full.
    void anchor(const Stored* logits, const Real* gate, const Stored* prefix, const std::int32_t* labels,
                Stored* d_logits, Real* d_gate, Stored* d_prefix) {
        const std::int64_t T = shape_.frames, P = shape_.prefixes, V = shape_.columns;
        const std::int64_t U = usable(labels, shape_.labels, T);
        double loss = std::numeric_limits<double>::quiet_NaN();
        if (U > 0) {
            exponentials(logits, prefix);
            log_probabilities(logits, gate, prefix, labels, U);
            loss = recursion_.run({static_cast<std::size_t>(T), static_cast<std::size_t>(U), enter_, stay_, blank_,
                                   repeats_, options_.weights, options_.kind});
            if (!std::isfinite(loss)) ++stats.skipped;
        }
        if (!std::isfinite(loss)) {
            std::fill_n(d_logits, T * V, Stored{});
            std::fill_n(d_gate, T, Real(0));
            if (d_prefix) std::fill_n(d_prefix, P * V, Stored{});
            return;
        }
        total += loss;
        for (std::int64_t k = 0; k < U; ++k) {
            stats.nll[static_cast<std::size_t>(k)] -= recursion_.log_q[static_cast<std::size_t>(k)];
            ++stats.count[static_cast<std::size_t>(k)];
        }
        differentiate(labels, U, gate, d_logits, d_gate, d_prefix);
    }

    LossStats stats;
    double total = 0.0;

private:
    [[nodiscard]] std::size_t at(std::int64_t k, std::int64_t t) const {
        return static_cast<std::size_t>(k * shape_.frames + t);
    }
    /// Without conditioning every prefix shares one row.
    [[nodiscard]] std::int64_t row_of(std::int64_t length) const { return shape_.conditioned ? length : 0; }

    void exponentials(const Stored* logits, const Stored* prefix) {
        const std::int64_t T = shape_.frames, P = shape_.prefixes, V = shape_.columns;
        for (std::int64_t t = 0; t < T; ++t)
            a_top_[static_cast<std::size_t>(t)] =
                exp_row(logits + t * V, V, padded_, &a_[static_cast<std::size_t>(t * padded_)]);
        if (shape_.conditioned)
            for (std::int64_t l = 0; l < P; ++l)
                s_top_[static_cast<std::size_t>(l)] =
                    exp_row(prefix + l * V, V, padded_, &s_[static_cast<std::size_t>(l * padded_)]);
        normalisers(a_.data(), T, s_.data(), P, padded_, z_.data());
    }

    /// log softmax_c(a_t + s_l) of one token.
    double log_p(const Stored* logits, const Stored* prefix, std::int64_t t, std::int64_t length,
                 std::int32_t token) const {
        const std::int64_t V = shape_.columns, l = row_of(length);
        double x = static_cast<double>(simd::to_real<Stored, Real>(logits[t * V + token])) -
                   static_cast<double>(a_top_[static_cast<std::size_t>(t)]);
        if (shape_.conditioned)
            x += static_cast<double>(simd::to_real<Stored, Real>(prefix[l * V + token])) -
                 static_cast<double>(s_top_[static_cast<std::size_t>(l)]);
        return x - std::log(static_cast<double>(z_[static_cast<std::size_t>(t * shape_.prefixes + l)]));
    }

    /// Whether the row of the prefix of all k labels exists (it matters to `stay` of the last label only).
    [[nodiscard]] bool has_row(std::int64_t length) const { return !shape_.conditioned || length < shape_.prefixes; }

    void log_probabilities(const Stored* logits, const Real* gate, const Stored* prefix, const std::int32_t* labels,
                           std::int64_t U) {
        const std::int64_t T = shape_.frames;
        enter_.resize(static_cast<std::size_t>(U * T));
        stay_.resize(enter_.size());
        blank_.resize(static_cast<std::size_t>(T));
        repeats_.resize(static_cast<std::size_t>(U));
        for (std::int64_t t = 0; t < T; ++t) blank_[static_cast<std::size_t>(t)] = log_sigmoid(gate[t]);
        for (std::int64_t k = 0; k < U; ++k) {
            repeats_[static_cast<std::size_t>(k)] = k > 0 && labels[k] == labels[k - 1];
            for (std::int64_t t = 0; t < T; ++t) {
                const double emit = log_sigmoid(-gate[t]);
                enter_[at(k, t)] = emit + log_p(logits, prefix, t, k, labels[k]);
                stay_[at(k, t)] = has_row(k + 1) ? emit + log_p(logits, prefix, t, k + 1, labels[k]) : emit;
            }
        }
    }

    void differentiate(const std::int32_t* labels, std::int64_t U, const Real* gate, Stored* d_logits, Real* d_gate,
                       Stored* d_prefix) {
        const std::int64_t T = shape_.frames, P = shape_.prefixes, V = shape_.columns;
        std::fill(g_.begin(), g_.end(), Real(0));
        for (std::int64_t t = 0; t < T; ++t) {
            double emitted = 0.0;
            for (std::int64_t k = 0; k < U; ++k) {
                const double enter = shape_.scale * recursion_.d_enter[at(k, t)],
                             stay = shape_.scale * recursion_.d_stay[at(k, t)];
                g_[static_cast<std::size_t>(t * P + row_of(k))] -= static_cast<Real>(enter);
                if (has_row(k + 1)) g_[static_cast<std::size_t>(t * P + row_of(k + 1))] -= static_cast<Real>(stay);
                emitted += enter + stay;
            }
            const double blank = std::exp(log_sigmoid(gate[t]));
            d_gate[t] = static_cast<Real>(
                shape_.scale * recursion_.d_blank[static_cast<std::size_t>(t)] * (1.0 - blank) - emitted * blank);
        }
        for (std::size_t i = 0; i < g_.size(); ++i) g_[i] /= z_[i];
        gradients(a_.data(), T, s_.data(), P, V, padded_, g_.data(), d_logits, d_prefix);
        for (std::int64_t k = 0; k < U; ++k)
            for (std::int64_t t = 0; t < T; ++t) {
                const auto enter = static_cast<Real>(shape_.scale * recursion_.d_enter[at(k, t)]);
                const auto stay = static_cast<Real>(shape_.scale * recursion_.d_stay[at(k, t)]);
                add(d_logits[t * V + labels[k]], has_row(k + 1) ? enter + stay : enter);
                if (!d_prefix) continue;
                add(d_prefix[k * V + labels[k]], enter);
                if (has_row(k + 1)) add(d_prefix[(k + 1) * V + labels[k]], stay);
            }
    }

    static void add(Stored& to, Real x) { to = simd::to_stored<Stored, Real>(simd::to_real<Stored, Real>(to) + x); }

    const Shape& shape_;
    const CtcLossOptions& options_;
    std::int64_t padded_;
    std::vector<Real> a_, s_, a_top_, s_top_, z_, g_;
    std::vector<double> enter_, stay_, blank_;
    std::vector<unsigned char> repeats_;
    CtcRecursion recursion_;
};

struct LossAndGradients {
    double loss = 0.0;
    at::Tensor d_logits, d_gate, d_prefix;
};

template <typename Stored, typename Real>
LossAndGradients all_anchors(const CtcLossBatch& batch, const CtcLossOptions& options, const Shape& shape,
                             LossStats& stats, ThreadTeam& team) {
    LossAndGradients result{0.0, at::empty_like(batch.logits), at::empty_like(batch.gate),
                            shape.conditioned ? at::empty_like(batch.prefix) : at::Tensor{}};
    const auto* logits = static_cast<const Stored*>(batch.logits.const_data_ptr());
    const auto* gate = static_cast<const Real*>(batch.gate.const_data_ptr());
    const auto* prefix = shape.conditioned ? static_cast<const Stored*>(batch.prefix.const_data_ptr()) : nullptr;
    const auto* labels = batch.labels.const_data_ptr<std::int32_t>();
    auto* d_logits = static_cast<Stored*>(result.d_logits.mutable_data_ptr());
    auto* d_gate = static_cast<Real*>(result.d_gate.mutable_data_ptr());
    auto* d_prefix = shape.conditioned ? static_cast<Stored*>(result.d_prefix.mutable_data_ptr()) : nullptr;
    std::vector<LossStats> shares(static_cast<std::size_t>(team.size()));
    std::vector<double> totals(shares.size(), 0.0);
    team.run([&](TeamMember& member) {
        Worker<Stored, Real> worker(shape, options);
        const auto mine = member.range(shape.anchors);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const std::int64_t a = i * shape.frames * shape.columns, s = i * shape.prefixes * shape.columns;
            worker.anchor(logits + a, gate + i * shape.frames, prefix ? prefix + s : nullptr, labels + i * shape.labels,
                          d_logits + a, d_gate + i * shape.frames, d_prefix ? d_prefix + s : nullptr);
        }
        shares[static_cast<std::size_t>(member.index())] = std::move(worker.stats);
        totals[static_cast<std::size_t>(member.index())] = worker.total;
    });
    for (std::size_t i = 0; i < shares.size(); ++i) {
        stats += shares[i];
        result.loss += totals[i] * shape.scale;
    }
    return result;
}

Shape checked(const CtcLossBatch& batch, const CtcLossOptions& options) {
    Shape shape;
    require(batch.labels.dim() == 2 && batch.labels.scalar_type() == at::kInt && batch.labels.is_contiguous(),
            "ctc_loss: labels must be a contiguous int32 [anchors, labels]");
    shape.anchors = batch.labels.size(0), shape.labels = batch.labels.size(1);
    require(static_cast<std::int64_t>(options.weights.size()) == shape.labels, "ctc_loss: {} weights for {} labels",
            options.weights.size(), shape.labels);
    const std::int64_t rows = batch.logits.size(0);
    require(shape.anchors > 0 && rows % shape.anchors == 0 && batch.gate.numel() == rows,
            "ctc_loss: {} frame rows and {} gates for {} anchors", rows, batch.gate.numel(), shape.anchors);
    shape.frames = rows / shape.anchors, shape.columns = batch.logits.size(1);
    shape.conditioned = batch.prefix.defined();
    shape.prefixes = shape.conditioned ? prefix_rows(options.kind, shape.labels) : 1;
    require(shape.prefixes <= kMaxPrefixes, "ctc_loss: {} labels an anchor, at most {}", shape.labels,
            kMaxPrefixes - 1);
    require(!shape.conditioned ||
                (batch.prefix.size(0) == shape.anchors * shape.prefixes && batch.prefix.size(1) == shape.columns &&
                 batch.prefix.scalar_type() == batch.logits.scalar_type() && batch.prefix.is_contiguous()),
            "ctc_loss: prefix scores must be contiguous [{} * {}, {}] of the logits' type", shape.anchors,
            shape.prefixes, shape.columns);
    require(batch.logits.is_contiguous() && batch.gate.is_contiguous(),
            "ctc_loss: logits and gates must be contiguous");
    double sum = 0.0;
    for (std::int64_t i = 0; i < shape.anchors; ++i) {
        const auto* labels = batch.labels.const_data_ptr<std::int32_t>() + i * shape.labels;
        for (std::int64_t k = 0; k < usable(labels, shape.labels, shape.frames); ++k) {
            require(labels[k] < shape.columns, "ctc_loss: label {} of anchor {} is outside the {} columns", labels[k],
                    i, shape.columns);
            sum += options.kind == CtcLossKind::ctc ? 1.0 : options.weights[static_cast<std::size_t>(k)];
        }
    }
    shape.scale = sum > 0 ? 1.0 / sum : 0.0;
    return shape;
}

LossAndGradients dispatch(const CtcLossBatch& batch, const CtcLossOptions& options, LossStats& stats,
                          ThreadTeam& team) {
    const Shape shape = checked(batch, options);
    switch (batch.logits.scalar_type()) {
        case at::kBFloat16:
            require(batch.gate.scalar_type() == at::kFloat, "ctc_loss: the gate must be float32");
            return all_anchors<BFloat16Bits, float>(batch, options, shape, stats, team);
        case at::kFloat:
            require(batch.gate.scalar_type() == at::kFloat, "ctc_loss: the gate must be float32");
            return all_anchors<float, float>(batch, options, shape, stats, team);
        case at::kDouble:
            require(batch.gate.scalar_type() == at::kDouble, "ctc_loss: the gate must be float64");
            return all_anchors<double, double>(batch, options, shape, stats, team);
        default:
            fail("ctc_loss: logits must be bfloat16, float32 or float64");
    }
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct CtcLossFunction : torch::autograd::Function<CtcLossFunction> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& gate,
                              const at::Tensor& prefix, const at::Tensor& labels, const CtcLossOptions* options,
                              LossStats* stats, ThreadTeam* team) {
        const bool conditioned = prefix.numel() > 0;  // an autograd function takes no undefined tensors
        LossAndGradients result =
            dispatch({logits, gate, conditioned ? prefix : at::Tensor{}, labels}, *options, *stats, *team);
        context->save_for_backward({result.d_logits, result.d_gate, result.d_prefix});
        return at::scalar_tensor(result.loss, gate.options());
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const variable_list saved = context->get_saved_variables();
        const double outer = outputs[0].item<double>();
        variable_list gradients(7);
        for (std::size_t i = 0; i < 3; ++i)
            if (saved[i].defined()) gradients[i] = outer == 1.0 ? saved[i] : saved[i] * outer;
        return gradients;
    }
};

}  // namespace

at::Tensor ctc_loss(const CtcLossBatch& batch, const CtcLossOptions& options, LossStats& stats, ThreadTeam& team) {
    const at::Tensor prefix = batch.prefix.defined() ? batch.prefix : at::empty({0}, batch.logits.options());
    return CtcLossFunction::apply(batch.logits, batch.gate, prefix, batch.labels, &options, &stats, &team);
}

}  // namespace outrider
