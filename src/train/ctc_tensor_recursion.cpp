#include "train/ctc_tensor_recursion.hpp"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

namespace outrider {

namespace {

/// Rows one frame later: what holds after frame t stands at t + 1, where the next label looks. Over dimension -2.
at::Tensor later_rows(const at::Tensor& x) { return at::constant_pad_nd(x.slice(-2, 0, x.size(-2) - 1), {0, 0, 1, 0}); }
/// The same of vectors over frames.
at::Tensor later(const at::Tensor& x) { return at::constant_pad_nd(x.slice(-1, 0, x.size(-1) - 1), {1, 0}); }
/// What reaches label k + 1 at a frame, as an adjoint of prefix k after the frame before: [A, U, T].
at::Tensor to_parents(const at::Tensor& x) { return at::constant_pad_nd(x.slice(1, 1).slice(2, 1), {0, 1, 0, 1}); }

at::Tensor times(const at::Tensor& matrices, const at::Tensor& vectors) {
    return at::matmul(matrices, vectors.unsqueeze(-1)).squeeze(-1);
}
at::Tensor times_transposed(const at::Tensor& matrices, const at::Tensor& vectors) {
    return times(matrices.transpose(-1, -2), vectors);
}

/// exp of x[t] - x[j] for j <= t + diagonal, else 0. Above it the exponential may be infinite.
at::Tensor lower(const at::Tensor& x, std::int64_t diagonal) {
    return at::tril((x.unsqueeze(-1) - x.unsqueeze(-2)).exp(), diagonal);
}

class Recursion {
public:
    explicit Recursion(const CtcTensorInput& in)
        : in_(in), T_(in.enter.size(2)), U_(in.enter.size(1)), unusable_(in.usable.eq(0)) {
        const at::Tensor blanks = in.blank.cumsum(1);
        root_ = later(blanks).exp();  // [A, T]: so far nothing but blanks
        stay_ = lower(in.stay.cumsum(2), 0);
        blank_ = lower(blanks, -1);
        enter_ = in.enter.exp();
        if (U_ > 1) {
            const at::Tensor before = stay_.slice(1, 0, U_ - 1);
            next_ = at::matmul(later_rows(blank_).unsqueeze(1), before) +
                    in.differs.slice(1, 1).unsqueeze(-1).unsqueeze(-1) * later_rows(before);
        }
    }

    CtcTensorResult run() {
        forward();
        at::Tensor loss = -(in_.weights * result_.log_q).sum(1);
        if (in_.other_enter.defined()) loss = loss - others();
        if (in_.kind == CtcLossKind::ctc) loss = loss - end();
        result_.loss = loss;
        backward();
        return std::move(result_);
    }

private:
    void forward() {
        std::vector<at::Tensor> f, q, g;
        at::Tensor reached = root_;
        for (std::int64_t k = 0; k < U_; ++k) {
            f.push_back(enter_.select(1, k) * reached);
            q.push_back(f.back().sum(1, true).masked_fill(unusable_.slice(1, k, k + 1), 1.0));
            g.push_back(f.back() / q.back());
            if (k + 1 < U_) reached = times(next_.select(1, k), g.back());
        }
        f_ = at::stack(f, 1), q_ = at::cat(q, 1), g_ = at::stack(g, 1);
        rn_ = times(stay_, g_);
        rb_ = times(blank_.unsqueeze(1), rn_);
        result_.log_q = q_.log();
    }

    /// [A] w_k sum s log q(v | y_<k), and what that sends back to the prefixes.
    at::Tensor others() {
        const auto rows = [&](const at::Tensor& root, const at::Tensor& x) {
            return at::cat({root.unsqueeze(1), later(x.slice(1, 0, U_ - 1))}, 1).unsqueeze(2);  // [A, U, 1, T]
        };
        const at::Tensor e = in_.other_enter.exp(), differs = in_.other_differs.unsqueeze(3);
        const at::Tensor f = e * (rows(root_, rb_) + differs * rows(at::zeros_like(root_), rn_));
        const at::Tensor q = f.sum(3), none = q.le(0);  // the frames cannot hold it
        const at::Tensor known = q.masked_fill(none, 1.0);
        const at::Tensor d = (-in_.other_weights / known).masked_fill(none, 0.0).unsqueeze(3);
        result_.d_other = d * f;
        from_others_ = (d * e).sum(2);  // [A, U, T], by the mass that a blank ended
        const at::Tensor by_rn = (d * e * differs).sum(2);
        send_back(to_parents(from_others_), to_parents(by_rn));
        return (in_.other_weights * known.log()).flatten(1).sum(1);
    }

    /// [A] log of the mass that ends with the last label.
    at::Tensor end() {
        const at::Tensor last = in_.usable - at::constant_pad_nd(in_.usable.slice(1, 1), {0, 1});  // [A, U]
        const at::Tensor ends = (last * (rb_ + rn_).select(2, T_ - 1)).sum(1).masked_fill(unusable_.select(1, 0), 1.0);
        const at::Tensor d = at::constant_pad_nd((-last / ends.unsqueeze(1)).unsqueeze(2), {T_ - 1, 0});
        send_back(d, d);
        return ends.log();
    }

    /// Adjoints [A, U, T] of rb and rn that come from elsewhere than the next label.
    void send_back(const at::Tensor& by_rb, const at::Tensor& by_rn) {
        by_rb_ = by_rb;
        by_g_ = times_transposed(stay_, by_rn + times_transposed(blank_.unsqueeze(1), by_rb));
    }

    void backward() {
        std::vector<at::Tensor> df(static_cast<std::size_t>(U_)), dg(df.size()), reached(df.size());
        for (std::int64_t k = U_ - 1; k >= 0; --k) {
            const auto i = static_cast<std::size_t>(k);
            dg[i] = k + 1 < U_ ? times_transposed(next_.select(1, k), reached[i + 1]) : at::zeros_like(root_);
            if (by_g_.defined()) dg[i] = dg[i] + by_g_.select(1, k);
            const at::Tensor mean = (dg[i] * g_.select(1, k)).sum(1, true);
            df[i] =
                (dg[i] - mean - in_.weights.slice(1, k, k + 1)) / q_.slice(1, k, k + 1) * in_.usable.slice(1, k, k + 1);
            reached[i] = df[i] * enter_.select(1, k);
        }
        result_.d_enter = at::stack(df, 1) * f_;
        result_.d_stay = at::stack(dg, 1) * (rn_ - g_);
        blank_back(at::stack(reached, 1));
    }

    /// `reached` [A, U, T]: the adjoint of the mass that each label entered from.
    void blank_back(const at::Tensor& reached) {
        at::Tensor by_rb = to_parents(reached);
        if (by_rb_.defined()) by_rb = by_rb + by_rb_;
        const at::Tensor whole = by_rb + times_transposed(blank_.unsqueeze(1), by_rb);
        at::Tensor first = reached.select(1, 0);
        if (from_others_.defined()) first = first + from_others_.select(1, 0);
        const at::Tensor root = first * root_;
        result_.d_blank = (whole * rb_).sum(1) + (root.sum(1, true) - root.cumsum(1));
    }

    const CtcTensorInput& in_;
    std::int64_t T_, U_;
    at::Tensor unusable_, root_, stay_, blank_, enter_, next_;
    at::Tensor f_, q_, g_, rn_, rb_, by_rb_, by_g_, from_others_;
    CtcTensorResult result_;
};

}  // namespace

CtcTensorResult ctc_tensor_recursion(const CtcTensorInput& in) { return Recursion(in).run(); }

}  // namespace outrider
