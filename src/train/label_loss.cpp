// Row by row: exponentials, their sum, the loss, and the gradient in one more pass over the columns.
#include "train/label_loss.hpp"

#include <cmath>

#include <outrider/core/error.hpp>

#include "exp_rows.hpp"

namespace outrider {

namespace {

template <typename Real>
OUTRIDER_ALWAYS_INLINE Real sum_body(const Real* a, std::int64_t padded) {
    using V = simd::Vector<Real>;
    constexpr std::int64_t L = simd::kLanes<Real>;
    V sum{}, more{};
    for (std::int64_t c = 0; c < padded; c += 2 * L) sum += simd::get(a + c), more += simd::get(a + c + L);
    sum += more;
    Real total = 0;
    for (std::int64_t j = 0; j < L; ++j) total += sum[j];
    return total;
}

/// sum_c t[c] (y[c] - x[c]) over the scores that t and a were made of. `t` has zeros behind `count`.
template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE Real difference_body(const Real* t, const Stored* y, const Stored* x, std::int64_t count) {
    using V = simd::Vector<Real>;
    constexpr std::int64_t L = simd::kLanes<Real>;
    V sum{};
    std::int64_t c = 0;
    for (; c + L <= count; c += L)
        sum += simd::get(t + c) * (simd::load<Stored, Real>(y + c) - simd::load<Stored, Real>(x + c));
    Real total = 0;
    for (std::int64_t j = 0; j < L; ++j) total += sum[j];
    for (; c < count; ++c) total += t[c] * (simd::to_real<Stored, Real>(y[c]) - simd::to_real<Stored, Real>(x[c]));
    return total;
}

/// d[c] = p a[c] - q t[c]; t may be null.
template <typename Stored, typename Real>
OUTRIDER_ALWAYS_INLINE void gradient_body(const Real* a, Real p, const Real* t, Real q, std::int64_t count, Stored* d) {
    constexpr std::int64_t L = simd::kLanes<Real>;
    if (t)
        for (std::int64_t c = 0; c < count; c += L)
            simd::store<Stored, Real>(d + c, p * simd::get(a + c) - q * simd::get(t + c), count - c);
    else
        for (std::int64_t c = 0; c < count; c += L) simd::store<Stored, Real>(d + c, p * simd::get(a + c), count - c);
}

// One vector path per loop and type; see vector_loops.hpp.
OUTRIDER_VECTOR_LOOP(float, sum, (const float* a, std::int64_t n), (a, n)) { return sum_body(a, n); }
OUTRIDER_VECTOR_LOOP(double, sum, (const double* a, std::int64_t n), (a, n)) { return sum_body(a, n); }
OUTRIDER_VECTOR_LOOP(float, difference, (const float* t, const BFloat16Bits* y, const BFloat16Bits* x, std::int64_t n),
                     (t, y, x, n)) {
    return difference_body(t, y, x, n);
}
OUTRIDER_VECTOR_LOOP(float, difference, (const float* t, const float* y, const float* x, std::int64_t n),
                     (t, y, x, n)) {
    return difference_body(t, y, x, n);
}
OUTRIDER_VECTOR_LOOP(double, difference, (const double* t, const double* y, const double* x, std::int64_t n),
                     (t, y, x, n)) {
    return difference_body(t, y, x, n);
}
OUTRIDER_VECTOR_LOOP(void, gradient,
                     (const float* a, float p, const float* t, float q, std::int64_t n, BFloat16Bits* d),
                     (a, p, t, q, n, d)) {
    gradient_body(a, p, t, q, n, d);
}
OUTRIDER_VECTOR_LOOP(void, gradient, (const float* a, float p, const float* t, float q, std::int64_t n, float* d),
                     (a, p, t, q, n, d)) {
    gradient_body(a, p, t, q, n, d);
}
OUTRIDER_VECTOR_LOOP(void, gradient, (const double* a, double p, const double* t, double q, std::int64_t n, double* d),
                     (a, p, t, q, n, d)) {
    gradient_body(a, p, t, q, n, d);
}

/// What the loops over rows share.
struct Shape {
    std::int64_t heads = 0, anchors = 0, columns = 0;
    double scale = 0.0;    // 1 / sum of weights
    double teacher = 0.0;  // its share
};

/// One thread's share of the rows.
template <typename Stored, typename Real>
class Worker {
public:
    explicit Worker(const Shape& shape)
        : shape_(shape),
          padded_(padded_scores<Real>(shape.columns)),
          a_(static_cast<std::size_t>(padded_)),
          t_(shape.teacher > 0 ? a_.size() : 0) {
        stats.nll.assign(static_cast<std::size_t>(shape.heads), 0.0);
        stats.count.assign(stats.nll.size(), 0);
    }

    /// `weight`: w_k over the sum of all. The gradient's row is written in full.
    void row(std::size_t head, const Stored* logits, const Stored* teacher, std::int32_t label, double weight,
             Stored* d) {
        const std::int64_t V = shape_.columns;
        if (label < 0) {
            std::fill_n(d, V, Stored{});
            return;
        }
        const double top = static_cast<double>(exp_scores(logits, V, padded_, a_.data()));
        const double z = static_cast<double>(sum(a_.data(), padded_)), log_z = std::log(z) + top;
        const double ce = log_z - static_cast<double>(simd::to_real<Stored, Real>(logits[label]));
        const double s = shape_.teacher;
        double kl = 0.0, z_teacher = 1.0;
        if (s > 0) {
            const double high = static_cast<double>(exp_scores(teacher, V, padded_, t_.data()));
            z_teacher = static_cast<double>(sum(t_.data(), padded_));
            kl = static_cast<double>(difference(t_.data(), teacher, logits, V)) / z_teacher + log_z -
                 (std::log(z_teacher) + high);
        }
        const double loss = (1.0 - s) * ce + s * kl;
        if (!std::isfinite(loss) || !std::isfinite(ce)) {
            ++stats.skipped;
            std::fill_n(d, V, Stored{});
            return;
        }
        total += weight * loss;
        stats.nll[head] += ce;
        ++stats.count[head];
        gradient(a_.data(), static_cast<Real>(weight / z), s > 0 ? t_.data() : nullptr,
                 static_cast<Real>(weight * s / z_teacher), V, d);
        d[label] = simd::to_stored<Stored, Real>(at_label(static_cast<std::size_t>(label), weight, z, z_teacher));
    }

    LossStats stats;
    double total = 0.0;

private:
    /// The label's own derivative anew, in double: with a rounded one the difference of near equals would be lost.
    [[nodiscard]] Real at_label(std::size_t label, double weight, double z, double z_teacher) const {
        const double s = shape_.teacher;
        const double mass = (1.0 - s) + (s > 0 ? s * static_cast<double>(t_[label]) / z_teacher : 0.0);
        return static_cast<Real>(weight * (static_cast<double>(a_[label]) / z - mass));
    }

    const Shape& shape_;
    std::int64_t padded_;
    std::vector<Real> a_, t_;
};

struct LossAndGradient {
    double loss = 0.0;
    at::Tensor d_logits;
};

template <typename Stored, typename Real>
LossAndGradient all_rows(const LabelLossBatch& batch, const LabelLossOptions& options, const Shape& shape,
                         LossStats& stats, ThreadTeam& team) {
    LossAndGradient result{0.0, at::empty_like(batch.logits)};
    const auto* logits = static_cast<const Stored*>(batch.logits.const_data_ptr());
    const auto* teacher = shape.teacher > 0 ? static_cast<const Stored*>(batch.teacher.const_data_ptr()) : nullptr;
    const auto* labels = batch.labels.const_data_ptr<std::int32_t>();
    auto* d = static_cast<Stored*>(result.d_logits.mutable_data_ptr());
    std::vector<LossStats> shares(static_cast<std::size_t>(team.size()));
    std::vector<double> totals(shares.size(), 0.0);
    team.run([&](TeamMember& member) {
        Worker<Stored, Real> worker(shape);
        const auto mine = member.range(shape.heads * shape.anchors);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const std::int64_t head = i / shape.anchors, anchor = i % shape.anchors, at = i * shape.columns;
            worker.row(static_cast<std::size_t>(head), logits + at, teacher ? teacher + at : nullptr,
                       labels[anchor * shape.heads + head],
                       options.weights[static_cast<std::size_t>(head)] * shape.scale, d + at);
        }
        shares[static_cast<std::size_t>(member.index())] = std::move(worker.stats);
        totals[static_cast<std::size_t>(member.index())] = worker.total;
    });
    for (std::size_t i = 0; i < shares.size(); ++i) {
        stats += shares[i];
        result.loss += totals[i];
    }
    return result;
}

Shape checked(const LabelLossBatch& batch, const LabelLossOptions& options) {
    require(batch.logits.dim() == 3 && batch.logits.is_contiguous(),
            "label_loss: logits must be contiguous [heads, anchors, columns]");
    Shape shape{batch.logits.size(0), batch.logits.size(1), batch.logits.size(2), 0.0, options.teacher};
    require(batch.labels.dim() == 2 && batch.labels.scalar_type() == at::kInt && batch.labels.is_contiguous() &&
                batch.labels.size(0) == shape.anchors && batch.labels.size(1) == shape.heads,
            "label_loss: labels must be a contiguous int32 [{}, {}]", shape.anchors, shape.heads);
    require(static_cast<std::int64_t>(options.weights.size()) == shape.heads, "label_loss: {} weights for {} heads",
            options.weights.size(), shape.heads);
    require(shape.teacher >= 0 && shape.teacher <= 1, "label_loss: the teacher's share is {}, expected 0 to 1",
            shape.teacher);
    require(shape.teacher == 0 ||
                (batch.teacher.defined() && batch.teacher.sizes() == batch.logits.sizes() &&
                 batch.teacher.scalar_type() == batch.logits.scalar_type() && batch.teacher.is_contiguous()),
            "label_loss: the teacher's logits must be contiguous and of the logits' shape and type");
    double sum_of_weights = 0.0;
    const auto* labels = batch.labels.const_data_ptr<std::int32_t>();
    for (std::int64_t i = 0; i < batch.labels.numel(); ++i) {
        require(labels[i] < shape.columns, "label_loss: label {} of anchor {} is outside the {} columns", labels[i],
                i / shape.heads, shape.columns);
        if (labels[i] >= 0) sum_of_weights += options.weights[static_cast<std::size_t>(i % shape.heads)];
    }
    shape.scale = sum_of_weights > 0 ? 1.0 / sum_of_weights : 0.0;
    return shape;
}

LossAndGradient dispatch(const LabelLossBatch& batch, const LabelLossOptions& options, LossStats& stats,
                         ThreadTeam& team) {
    const Shape shape = checked(batch, options);
    switch (batch.logits.scalar_type()) {
        case at::kBFloat16: return all_rows<BFloat16Bits, float>(batch, options, shape, stats, team);
        case at::kFloat: return all_rows<float, float>(batch, options, shape, stats, team);
        case at::kDouble: return all_rows<double, double>(batch, options, shape, stats, team);
        default: fail("label_loss: logits must be bfloat16, float32 or float64");
    }
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LabelLossFunction : torch::autograd::Function<LabelLossFunction> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const LabelLossBatch* batch,
                              const LabelLossOptions* options, LossStats* stats, ThreadTeam* team) {
        LossAndGradient result = dispatch({logits, batch->labels, batch->teacher}, *options, *stats, *team);
        context->save_for_backward({result.d_logits});
        return at::scalar_tensor(
            result.loss, logits.options().dtype(logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat));
    }

    static variable_list backward(AutogradContext* context, const variable_list& outputs) {
        const at::Tensor saved = context->get_saved_variables()[0];
        const double outer = outputs[0].item<double>();
        variable_list gradients(5);
        gradients[0] = outer == 1.0 ? saved : saved * outer;
        return gradients;
    }
};

}  // namespace

at::Tensor label_loss(const LabelLossBatch& batch, const LabelLossOptions& options, LossStats& stats,
                      ThreadTeam& team) {
    return LabelLossFunction::apply(batch.logits, &batch, &options, &stats, &team);
}

}  // namespace outrider
