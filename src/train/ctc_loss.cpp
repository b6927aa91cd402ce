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
    std::int64_t anchors = 0, frames = 0, labels = 0, prefixes = 0, columns = 0, others = 0;
    bool conditioned = false;
    double scale = 0.0;  // 1 / sum of weights
};

template <typename Real>
double log_sigmoid(Real x) {
    const double v = static_cast<double>(x);
    return v < 0 ? v - std::log1p(std::exp(v)) : -std::log1p(std::exp(-v));
}

/// Rows of one anchor.
template <typename Stored, typename Real>
struct AnchorRows {
    const Stored* logits;         // [T, V]
    const Real* gate;             // [T]
    const Stored* prefix;         // [P, V] or null
    const std::int32_t* labels;   // [U]
    const std::int32_t* others;   // [U, M]
    const float* other_shares;    // [U, M]
    Stored* d_logits;
    Real* d_gate;
    Stored* d_prefix;
};

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
          g_(z_.size()),
          log_z_(z_.size()) {
        stats.nll.assign(static_cast<std::size_t>(shape.labels), 0.0);
        stats.count.assign(static_cast<std::size_t>(shape.labels), 0);
    }

    /// Gradients are written in full.
    void anchor(const AnchorRows<Stored, Real>& rows) {
        const std::int64_t T = shape_.frames, P = shape_.prefixes, V = shape_.columns;
        const std::int64_t U = usable(rows.labels, shape_.labels, T);
        double loss = std::numeric_limits<double>::quiet_NaN();
        if (U > 0) {
            exponentials(rows.logits, rows.prefix);
            log_probabilities(rows, U);
            log_probabilities_of_others(rows, U);
            loss = recursion_.run({static_cast<std::size_t>(T), static_cast<std::size_t>(U), enter_, stay_, blank_,
                                   repeats_, options_.weights, options_.kind, static_cast<std::size_t>(shape_.others),
                                   other_enter_, other_repeats_, other_shares_});
            if (!std::isfinite(loss)) ++stats.skipped;
        }
        if (!std::isfinite(loss)) {
            std::fill_n(rows.d_logits, T * V, Stored{});
            std::fill_n(rows.d_gate, T, Real(0));
            if (rows.d_prefix) std::fill_n(rows.d_prefix, P * V, Stored{});
            return;
        }
        total += loss;
        for (std::int64_t k = 0; k < U; ++k) {
            stats.nll[static_cast<std::size_t>(k)] -= recursion_.log_q[static_cast<std::size_t>(k)];
            ++stats.count[static_cast<std::size_t>(k)];
        }
        differentiate(rows, U);
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
        for (std::size_t i = 0; i < z_.size(); ++i) log_z_[i] = std::log(static_cast<double>(z_[i]));
    }

    /// log softmax_c(a_t + s_l) of one token.
    double log_p(const AnchorRows<Stored, Real>& rows, std::int64_t t, std::int64_t length, std::int32_t token) const {
        const std::int64_t V = shape_.columns, l = row_of(length);
        double x = static_cast<double>(simd::to_real<Stored, Real>(rows.logits[t * V + token])) -
                   static_cast<double>(a_top_[static_cast<std::size_t>(t)]);
        if (shape_.conditioned)
            x += static_cast<double>(simd::to_real<Stored, Real>(rows.prefix[l * V + token])) -
                 static_cast<double>(s_top_[static_cast<std::size_t>(l)]);
        return x - log_z_[static_cast<std::size_t>(t * shape_.prefixes + l)];
    }

    /// Whether the row of the prefix of all k labels exists (it matters to `stay` of the last label only).
    [[nodiscard]] bool has_row(std::int64_t length) const { return !shape_.conditioned || length < shape_.prefixes; }

    void log_probabilities(const AnchorRows<Stored, Real>& rows, std::int64_t U) {
        const std::int64_t T = shape_.frames;
        const std::int32_t* labels = rows.labels;
        enter_.resize(static_cast<std::size_t>(U * T));
        stay_.resize(enter_.size());
        blank_.resize(static_cast<std::size_t>(T));
        repeats_.resize(static_cast<std::size_t>(U));
        for (std::int64_t t = 0; t < T; ++t) blank_[static_cast<std::size_t>(t)] = log_sigmoid(rows.gate[t]);
        for (std::int64_t k = 0; k < U; ++k) {
            repeats_[static_cast<std::size_t>(k)] = k > 0 && labels[k] == labels[k - 1];
            for (std::int64_t t = 0; t < T; ++t) {
                const double emit = log_sigmoid(-rows.gate[t]);
                enter_[at(k, t)] = emit + log_p(rows, t, k, labels[k]);
                stay_[at(k, t)] = has_row(k + 1) ? emit + log_p(rows, t, k + 1, labels[k]) : emit;
            }
        }
    }

    void log_probabilities_of_others(const AnchorRows<Stored, Real>& rows, std::int64_t U) {
        const std::int64_t T = shape_.frames, M = shape_.others;
        other_enter_.resize(static_cast<std::size_t>(U * M * T));
        other_repeats_.resize(static_cast<std::size_t>(U * M));
        other_shares_.assign(rows.other_shares, rows.other_shares + U * M);
        for (std::int64_t i = 0; i < U * M; ++i) {
            const std::int64_t k = i / M;
            other_repeats_[static_cast<std::size_t>(i)] = k > 0 && rows.others[i] == rows.labels[k - 1];
            for (std::int64_t t = 0; t < T; ++t)
                other_enter_[at(i, t)] = log_sigmoid(-rows.gate[t]) + log_p(rows, t, k, rows.others[i]);
        }
    }

    void differentiate(const AnchorRows<Stored, Real>& rows, std::int64_t U) {
        const std::int64_t T = shape_.frames, P = shape_.prefixes, V = shape_.columns, M = shape_.others;
        std::fill(g_.begin(), g_.end(), Real(0));
        for (std::int64_t t = 0; t < T; ++t) {
            double emitted = 0.0;
            for (std::int64_t k = 0; k < U; ++k) {
                double enter = shape_.scale * recursion_.d_enter[at(k, t)];
                for (std::int64_t i = k * M; i < (k + 1) * M; ++i) enter += shape_.scale * recursion_.d_other[at(i, t)];
                const double stay = shape_.scale * recursion_.d_stay[at(k, t)];
                g_[static_cast<std::size_t>(t * P + row_of(k))] -= static_cast<Real>(enter);
                if (has_row(k + 1)) g_[static_cast<std::size_t>(t * P + row_of(k + 1))] -= static_cast<Real>(stay);
                emitted += enter + stay;
            }
            const double blank = std::exp(log_sigmoid(rows.gate[t]));
            rows.d_gate[t] = static_cast<Real>(
                shape_.scale * recursion_.d_blank[static_cast<std::size_t>(t)] * (1.0 - blank) - emitted * blank);
        }
        for (std::size_t i = 0; i < g_.size(); ++i) g_[i] /= z_[i];
        gradients(a_.data(), T, s_.data(), P, V, padded_, g_.data(), rows.d_logits, rows.d_prefix);
        for (std::int64_t k = 0; k < U; ++k)
            for (std::int64_t t = 0; t < T; ++t) {
                emits(rows, t, k, rows.labels[k], shape_.scale * recursion_.d_enter[at(k, t)]);
                for (std::int64_t i = k * M; i < (k + 1) * M; ++i)
                    emits(rows, t, k, rows.others[i], shape_.scale * recursion_.d_other[at(i, t)]);
                if (has_row(k + 1))
                    emits(rows, t, k + 1, rows.labels[k], shape_.scale * recursion_.d_stay[at(k, t)]);
            }
    }

    /// The part of a log probability's gradient that goes to its own token.
    void emits(const AnchorRows<Stored, Real>& rows, std::int64_t t, std::int64_t length, std::int32_t token,
               double gradient) const {
        add(rows.d_logits[t * shape_.columns + token], static_cast<Real>(gradient));
        if (rows.d_prefix) add(rows.d_prefix[length * shape_.columns + token], static_cast<Real>(gradient));
    }

    static void add(Stored& to, Real x) { to = simd::to_stored<Stored, Real>(simd::to_real<Stored, Real>(to) + x); }

    const Shape& shape_;
    const CtcLossOptions& options_;
    std::int64_t padded_;
    std::vector<Real> a_, s_, a_top_, s_top_, z_, g_;
    std::vector<double> log_z_, enter_, stay_, blank_, other_enter_, other_shares_;
    std::vector<unsigned char> repeats_, other_repeats_;
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
    const auto* others = shape.others > 0 ? batch.others.const_data_ptr<std::int32_t>() : nullptr;
    const auto* shares_of_others = shape.others > 0 ? batch.other_shares.const_data_ptr<float>() : nullptr;
    auto* d_logits = static_cast<Stored*>(result.d_logits.mutable_data_ptr());
    auto* d_gate = static_cast<Real*>(result.d_gate.mutable_data_ptr());
    auto* d_prefix = shape.conditioned ? static_cast<Stored*>(result.d_prefix.mutable_data_ptr()) : nullptr;
    std::vector<LossStats> shares(static_cast<std::size_t>(team.size()));
    std::vector<double> totals(shares.size(), 0.0);
    team.run([&](TeamMember& member) {
        Worker<Stored, Real> worker(shape, options);
        const auto mine = member.range(shape.anchors);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const std::int64_t a = i * shape.frames * shape.columns, s = i * shape.prefixes * shape.columns,
                               o = i * shape.labels * shape.others;
            worker.anchor({logits + a, gate + i * shape.frames, prefix ? prefix + s : nullptr, labels + i * shape.labels,
                           others + o, shares_of_others + o, d_logits + a, d_gate + i * shape.frames,
                           d_prefix ? d_prefix + s : nullptr});
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

/// M. A share of a token outside the columns, or shares above 1 together, would go unseen into wrong gradients.
std::int64_t checked_others(const CtcLossBatch& batch, const CtcLossOptions& options, const Shape& shape) {
    if (!batch.others.defined()) return 0;
    require(options.kind == CtcLossKind::prefix, "ctc_loss: a teacher's tokens need the prefix loss");
    const std::int64_t M = batch.others.dim() == 3 ? batch.others.size(2) : 0;
    require(M > 0 && batch.others.size(0) == shape.anchors && batch.others.size(1) == shape.labels &&
                batch.others.scalar_type() == at::kInt && batch.others.is_contiguous(),
            "ctc_loss: a teacher's tokens must be a contiguous int32 [{}, {}, M]", shape.anchors, shape.labels);
    require(batch.other_shares.defined() && batch.other_shares.sizes() == batch.others.sizes() &&
                batch.other_shares.scalar_type() == at::kFloat && batch.other_shares.is_contiguous(),
            "ctc_loss: a teacher's shares must be contiguous float32 of its tokens' shape");
    const auto* tokens = batch.others.const_data_ptr<std::int32_t>();
    const auto* shares = batch.other_shares.const_data_ptr<float>();
    for (std::int64_t row = 0; row < shape.anchors * shape.labels; ++row) {
        double sum = 0.0;
        for (std::int64_t i = row * M; i < (row + 1) * M; ++i) {
            require(tokens[i] >= 0 && tokens[i] < shape.columns && shares[i] >= 0,
                    "ctc_loss: a teacher wants token {} with share {}, expected one of {} columns and at least 0",
                    tokens[i], shares[i], shape.columns);
            sum += static_cast<double>(shares[i]);
        }
        require(sum < 1.0 + 1e-5, "ctc_loss: a teacher's shares sum to {}, expected at most 1", sum);
    }
    return M;
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
    shape.others = checked_others(batch, options, shape);
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
                              const at::Tensor& prefix, const CtcLossBatch* batch, const CtcLossOptions* options,
                              LossStats* stats, ThreadTeam* team) {
        const bool conditioned = prefix.numel() > 0;  // an autograd function takes no undefined tensors
        LossAndGradients result = dispatch({logits, gate, conditioned ? prefix : at::Tensor{}, batch->labels,
                                            batch->others, batch->other_shares},
                                           *options, *stats, *team);
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
    return CtcLossFunction::apply(batch.logits, batch.gate, prefix, &batch, &options, &stats, &team);
}

}  // namespace outrider
