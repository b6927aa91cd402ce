// The CTC objective of one anchor and its gradient: the prefix recursion of Graves et al. 2006 in conditional form, by
// hand in both directions. Frames may depend on the drafted prefix (a transducer's prediction network).
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <outrider/train/train.hpp>

namespace outrider {

/// One anchor's loss over T frames and U labels. Reusable scratch; not thread-safe.
///
/// With pi_t(c | l) the probability of token c in frame t after the drafted prefix l, b_t that of blank:
///     f_k[t]  = pi_t(y_k | y_<k) phi_{k-1}[t-1],  phi = rb + [y_k differs from y_{k-1}] rn   (y_k enters at t)
///     Q_k     = sum_t f_k[t]                       = q(y_k | y_<k), because rb and rn are kept divided by Psi(y_<k)
///     rn_k[t] = pi_t(y_k | y_<=k) rn_k[t-1] + f_k[t] / Q_k
///     rb_k[t] = b_t (rb_k[t-1] + rn_k[t-1])
class CtcRecursion {
public:
    /// The inputs, natural logs; all of them at most 0. enter and stay are [U * T], row k - 1 holds label k.
    struct Input {
        std::size_t frames = 0, labels = 0;
        std::span<const double> enter;           ///< log pi_t(y_k | y_<k)
        std::span<const double> stay;            ///< log pi_t(y_k | y_<=k)
        std::span<const double> blank;           ///< [T] log b_t
        std::span<const unsigned char> repeats;  ///< [U] y_k equals y_{k-1}; the first is 0
        std::span<const double> weights;         ///< [U] w_k
        CtcLossKind kind = CtcLossKind::prefix;

        /// Other tokens v that a teacher wants after y_<k, M of each label; prefix loss only. The label keeps what
        /// their shares leave of 1: w_k ((1 - sum s) log q(y_k | y_<k) + sum s log q(v | y_<k)).
        std::size_t others = 0;                        ///< M
        std::span<const double> other_enter;           ///< [U * M * T] log pi_t(v | y_<k)
        std::span<const unsigned char> other_repeats;  ///< [U * M] v equals y_{k-1}
        std::span<const double> other_shares;          ///< [U * M] s; one that the frames cannot hold is left out
    };

    /// Returns the loss, +inf or NaN when a label has probability 0. Fills the members below.
    double run(const Input& in) {
        const std::size_t T = in.frames, U = in.labels, row = T + 1;
        b_.resize(T);
        for (std::size_t t = 0; t < T; ++t) b_[t] = std::exp(in.blank[t]);
        rb_.assign((U + 1) * row, 0.0);
        rn_.assign((U + 1) * row, 0.0);
        f_.assign(U * T, 0.0);
        q_.assign(U, 0.0);
        log_q.assign(U, 0.0);
        set_weights(in);
        rb_[0] = 1.0;
        for (std::size_t t = 1; t <= T; ++t) rb_[t] = rb_[t - 1] * b_[t - 1];
        double loss = 0.0;
        for (std::size_t k = 1; k <= U; ++k) {
            forward(in, k);
            log_q[k - 1] = std::log(q_[k - 1]);
            loss -= weight_[k - 1] * log_q[k - 1];
            loss -= others_forward(in, k);
        }
        end_ = rb_[U * row + T] + rn_[U * row + T];
        if (in.kind == CtcLossKind::ctc) loss -= std::log(end_);
        backward(in);
        return loss;
    }

    std::vector<double> log_q;            ///< [U] log q(y_k | y_<k)
    std::vector<double> d_enter, d_stay;  ///< [U * T] derivatives of the loss by Input::enter and stay
    std::vector<double> d_blank;          ///< [T]
    std::vector<double> d_other;          ///< [U * M * T] by Input::other_enter

private:
    void set_weights(const Input& in) {
        weight_.assign(in.labels, 1.0);
        other_q_.assign(in.labels * in.others, 0.0);
        if (in.kind == CtcLossKind::ctc) return;
        for (std::size_t k = 0; k < in.labels; ++k) {
            double left = 1.0;
            for (std::size_t m = 0; m < in.others; ++m) left -= in.other_shares[k * in.others + m];
            weight_[k] = in.weights[k] * left;
        }
    }

    /// w_k sum s log q(v | y_<k).
    double others_forward(const Input& in, std::size_t k) {
        const std::size_t T = in.frames, row = T + 1, M = in.others;
        double sum = 0.0;
        for (std::size_t i = (k - 1) * M; i < k * M; ++i) {
            for (std::size_t t = 0; t < T; ++t)
                other_q_[i] += std::exp(in.other_enter[i * T + t]) * reached((k - 1) * row + t, in.other_repeats[i]);
            if (other_q_[i] > 0) sum += in.weights[k - 1] * in.other_shares[i] * std::log(other_q_[i]);
        }
        return sum;
    }

    void others_back(const Input& in, std::size_t k) {
        const std::size_t T = in.frames, row = T + 1, M = in.others;
        for (std::size_t i = (k - 1) * M; i < k * M; ++i) {
            if (!(other_q_[i] > 0)) continue;
            const double d = -in.weights[k - 1] * in.other_shares[i] / other_q_[i];
            for (std::size_t t = 0; t < T; ++t) {
                const double e = std::exp(in.other_enter[i * T + t]);
                d_other[i * T + t] = d * e * reached((k - 1) * row + t, in.other_repeats[i]);
                d_rb_[t] += d * e;
                if (!in.other_repeats[i]) d_rn_[t] += d * e;
            }
        }
    }

    /// phi: the mass of a prefix from which a token may enter; a repeat needs a blank before it.
    [[nodiscard]] double reached(std::size_t at, bool repeats) const { return rb_[at] + (repeats ? 0.0 : rn_[at]); }

    void forward(const Input& in, std::size_t k) {
        const std::size_t T = in.frames, row = T + 1;
        const double* rb = &rb_[(k - 1) * row];
        const double* rn = &rn_[(k - 1) * row];
        double* f = &f_[(k - 1) * T];
        double q = 0.0;
        for (std::size_t t = 0; t < T; ++t) {
            f[t] = std::exp(in.enter[(k - 1) * T + t]) * (rb[t] + (in.repeats[k - 1] ? 0.0 : rn[t]));
            q += f[t];
        }
        q_[k - 1] = q;
        double* next_b = &rb_[k * row];
        double* next_n = &rn_[k * row];
        for (std::size_t t = 0; t < T; ++t) {
            next_n[t + 1] = std::exp(in.stay[(k - 1) * T + t]) * next_n[t] + f[t] / q;
            next_b[t + 1] = b_[t] * (next_b[t] + next_n[t]);
        }
    }

    /// Reverse mode through `forward`, from the last label to the first. d_rb and d_rn are the adjoints of label k's
    /// rows, up_b and up_n those of its parent.
    void backward(const Input& in) {
        const std::size_t T = in.frames, U = in.labels, row = T + 1;
        d_enter.assign(U * T, 0.0);
        d_stay.assign(U * T, 0.0);
        d_blank.assign(T, 0.0);
        d_other.assign(U * in.others * T, 0.0);
        d_rb_.assign(row, 0.0);
        d_rn_.assign(row, 0.0);
        if (in.kind == CtcLossKind::ctc) d_rb_[T] = d_rn_[T] = -1.0 / end_;
        for (std::size_t k = U; k >= 1; --k) {
            step_back(in, k);
            enter_back(in, k);
            others_back(in, k);
        }
        for (std::size_t t = T; t >= 1; --t) {  // the root's row of blanks
            d_blank[t - 1] += d_rb_[t] * rb_[t - 1] * b_[t - 1];
            d_rb_[t - 1] += d_rb_[t] * b_[t - 1];
        }
    }

    void step_back(const Input& in, std::size_t k) {
        const std::size_t T = in.frames, row = T + 1;
        const double* rb = &rb_[k * row];
        const double* rn = &rn_[k * row];
        d_f_.assign(T, 0.0);
        for (std::size_t t = T; t >= 1; --t) {
            const double b = b_[t - 1], s = std::exp(in.stay[(k - 1) * T + t - 1]);
            d_blank[t - 1] += d_rb_[t] * (rb[t - 1] + rn[t - 1]) * b;
            d_stay[(k - 1) * T + t - 1] = d_rn_[t] * rn[t - 1] * s;
            d_f_[t - 1] = d_rn_[t];
            d_rb_[t - 1] += d_rb_[t] * b;
            d_rn_[t - 1] += d_rb_[t] * b + d_rn_[t] * s;
        }
    }

    void enter_back(const Input& in, std::size_t k) {
        const std::size_t T = in.frames, row = T + 1;
        const double* rb = &rb_[(k - 1) * row];
        const double* rn = &rn_[(k - 1) * row];
        const double* f = &f_[(k - 1) * T];
        const double q = q_[k - 1], weight = weight_[k - 1];
        double mean = 0.0;
        for (std::size_t t = 0; t < T; ++t) mean += d_f_[t] * f[t];
        d_rb_.assign(row, 0.0);
        d_rn_.assign(row, 0.0);
        for (std::size_t t = 0; t < T; ++t) {
            const double d = (d_f_[t] - mean / q - weight) / q;  // by f_k[t]
            const double e = std::exp(in.enter[(k - 1) * T + t]);
            d_enter[(k - 1) * T + t] = d * e * (rb[t] + (in.repeats[k - 1] ? 0.0 : rn[t]));
            d_rb_[t] += d * e;
            if (!in.repeats[k - 1]) d_rn_[t] += d * e;
        }
    }

    std::vector<double> b_, rb_, rn_, f_, q_, d_rb_, d_rn_, d_f_, weight_, other_q_;
    double end_ = 0.0;
};

}  // namespace outrider
