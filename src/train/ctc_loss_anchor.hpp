// CTC's loss of one anchor: exponentials of frames and prefixes once, normalisers as a small product, the recursion in
// double, and both gradients in one pass over the columns.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "train/ctc_loss.hpp"

#include "ctc_loss_loops.hpp"
#include "exp_rows.hpp"

namespace outrider {

/// Usable labels of an anchor: named ones, as long as T frames can hold them.
inline std::int64_t usable_labels(const std::int32_t* labels, std::int64_t count, std::int64_t frames) {
    std::int64_t needed = 0;
    for (std::int64_t k = 0; k < count; ++k) {
        if (labels[k] < 0) return k;
        needed += 1 + (k > 0 && labels[k] == labels[k - 1]);
        if (needed > frames) return k;
    }
    return count;
}

/// What the loops over anchors share.
struct CtcLossShape {
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
struct CtcAnchorRows {
    const Stored* logits;        // [T, V]
    const Real* gate;            // [T]
    const Stored* prefix;        // [P, V] or null
    const std::int32_t* labels;  // [U]
    const std::int32_t* others;  // [U, M]
    const float* other_shares;   // [U, M]
    Stored* d_logits;
    Real* d_gate;
    Stored* d_prefix;
};

/// One thread's share of the anchors.
template <typename Stored, typename Real>
class CtcAnchorLoss {
public:
    CtcAnchorLoss(const CtcLossShape& shape, const CtcLossOptions& options)
        : shape_(shape),
          options_(options),
          padded_(padded_scores<Real>(shape.columns)),
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
    void anchor(const CtcAnchorRows<Stored, Real>& rows) {
        const std::int64_t T = shape_.frames, P = shape_.prefixes, V = shape_.columns;
        const std::int64_t U = usable_labels(rows.labels, shape_.labels, T);
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
                exp_scores(logits + t * V, V, padded_, &a_[static_cast<std::size_t>(t * padded_)]);
        if (shape_.conditioned)
            for (std::int64_t l = 0; l < P; ++l)
                s_top_[static_cast<std::size_t>(l)] =
                    exp_scores(prefix + l * V, V, padded_, &s_[static_cast<std::size_t>(l * padded_)]);
        normalisers(a_.data(), T, s_.data(), P, padded_, z_.data());
        for (std::size_t i = 0; i < z_.size(); ++i) log_z_[i] = std::log(static_cast<double>(z_[i]));
    }

    /// log softmax_c(a_t + s_l) of one token.
    double log_p(const CtcAnchorRows<Stored, Real>& rows, std::int64_t t, std::int64_t length,
                 std::int32_t token) const {
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

    void log_probabilities(const CtcAnchorRows<Stored, Real>& rows, std::int64_t U) {
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

    void log_probabilities_of_others(const CtcAnchorRows<Stored, Real>& rows, std::int64_t U) {
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

    void differentiate(const CtcAnchorRows<Stored, Real>& rows, std::int64_t U) {
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
                if (has_row(k + 1)) emits(rows, t, k + 1, rows.labels[k], shape_.scale * recursion_.d_stay[at(k, t)]);
            }
    }

    /// The part of a log probability's gradient that goes to its own token.
    void emits(const CtcAnchorRows<Stored, Real>& rows, std::int64_t t, std::int64_t length, std::int32_t token,
               double gradient) const {
        add(rows.d_logits[t * shape_.columns + token], static_cast<Real>(gradient));
        if (rows.d_prefix) add(rows.d_prefix[length * shape_.columns + token], static_cast<Real>(gradient));
    }

    static void add(Stored& to, Real x) { to = simd::to_stored<Stored, Real>(simd::to_real<Stored, Real>(to) + x); }

    const CtcLossShape& shape_;
    const CtcLossOptions& options_;
    std::int64_t padded_;
    std::vector<Real> a_, s_, a_top_, s_top_, z_, g_;
    std::vector<double> log_z_, enter_, stay_, blank_, other_enter_, other_shares_;
    std::vector<unsigned char> repeats_, other_repeats_;
    CtcRecursion recursion_;
};

}  // namespace outrider
