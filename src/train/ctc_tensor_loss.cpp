// The CTC objective of all anchors: exponentials once, normalisers as one product, and the gradients as two.
#include <ATen/ATen.h>

#include <outrider/core/error.hpp>

#include "train/ctc_tensor_recursion.hpp"
#include "train/tensor_loss.hpp"

namespace outrider {

namespace {

class TensorPass {
public:
    TensorPass(const CtcLossBatch& batch, CtcLossKind kind, const at::Tensor& weights)
        : batch_(batch),
          kind_(kind),
          A_(batch.labels.size(0)),
          U_(batch.labels.size(1)),
          T_(batch.logits.size(0) / A_),
          V_(batch.logits.size(1)),
          conditioned_(batch.prefix.defined()),
          P_(conditioned_ ? prefix_rows(kind, U_) : 1),
          real_(batch.logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat) {
        read_labels(weights);
    }

    TensorLoss run() {
        exponentials();
        CtcTensorInput in = inputs();
        const CtcTensorResult r = ctc_tensor_recursion(in);
        const at::Tensor there = in.usable.select(1, 0).gt(0), good = there.logical_and(r.loss.isfinite());
        bad_ = good.logical_not();
        const at::Tensor scale = sum_weights_.clamp_min(1e-300).reciprocal();
        const at::Tensor seen = (in.usable * good.unsqueeze(1)).sum(0), skipped = (there.logical_and(bad_)).sum();
        TensorLoss loss{r.loss.masked_fill(bad_, 0.0).sum() * scale,
                        at::cat({r.log_q.masked_fill(bad_.unsqueeze(1), 0.0).sum(0).neg(), seen,
                                 skipped.to(at::kDouble).unsqueeze(0)}),
                        {batch_.logits, batch_.gate},
                        {}};
        gradients(loss, r, scale);
        return loss;
    }

private:
    /// Usable are the named ones, as long as T frames can hold them.
    void read_labels(const at::Tensor& weights) {
        const at::Tensor y = batch_.labels.to(at::kLong);
        const at::Tensor same = at::constant_pad_nd(y.slice(1, 1).eq(y.slice(1, 0, U_ - 1)).to(at::kLong), {1, 0});
        const at::Tensor fits = (same + 1).cumsum(1).le(T_);
        usable_ = y.ge(0).to(at::kDouble).cumprod(1) * fits;
        differs_ = (1 - same).to(at::kDouble);
        labels_ = y.clamp_min(0);
        before_ = at::constant_pad_nd(y.slice(1, 0, U_ - 1), {1, 0}, -1);
        weights_ = kind_ == CtcLossKind::ctc ? usable_ : usable_ * weights;
        sum_weights_ = weights_.sum();
    }

    void exponentials() {
        const auto row = [this](const at::Tensor& scores, std::int64_t rows, at::Tensor& e, at::Tensor& shifted) {
            e = scores.view({A_, rows, V_}).to(real_);
            const at::Tensor top = e.amax(2, true);
            shifted = scores.view({A_, rows, V_}).gather(2, columns(rows)).to(real_) - top;
            e = e.sub(top).exp_();
        };
        row(batch_.logits, T_, a_, at_labels_);
        if (conditioned_) row(batch_.prefix, P_, s_, prefix_at_labels_);
        z_ = conditioned_ ? at::bmm(a_, s_.transpose(1, 2)) : a_.sum(2, true);  // [A, T, P]
        log_z_ = z_.to(at::kDouble).log().transpose(1, 2);                      // [A, P, T]
    }

    /// Labels, and behind them the teacher's tokens, label by label: [A, rows, U + U M].
    [[nodiscard]] at::Tensor columns(std::int64_t rows) const {
        at::Tensor all = labels_;
        if (batch_.others.defined()) all = at::cat({all, batch_.others.to(at::kLong).flatten(1)}, 1);
        return all.unsqueeze(1).expand({A_, rows, all.size(1)});
    }

    /// log softmax of tokens [A, n, T] that stand in `from` .. of `columns`, each after a prefix of `lengths` [n]; row
    /// `first` .. `first` + n of prefixes, each for `each` tokens.
    [[nodiscard]] at::Tensor log_p(std::int64_t from, std::int64_t count, std::int64_t each, std::int64_t first) const {
        const std::int64_t n = count / each;
        at::Tensor x = at_labels_.slice(2, from, from + count).transpose(1, 2).to(at::kDouble);  // [A, count, T]
        at::Tensor rows = log_z_;
        if (conditioned_) {
            const at::Tensor own =
                prefix_at_labels_.slice(1, first, first + n).slice(2, from, from + count).reshape({A_, n, n, each});
            const at::Tensor diagonal = own.diagonal(0, 1, 2).permute({0, 2, 1}).reshape({A_, count, 1});
            x = x + diagonal.to(at::kDouble);
            rows = log_z_.slice(1, first, first + n).unsqueeze(2).expand({A_, n, each, T_}).reshape({A_, count, T_});
        }
        return x - rows;
    }

    [[nodiscard]] CtcTensorInput inputs() const {
        const at::Tensor gate = batch_.gate.view({A_, T_}).to(at::kDouble);
        const at::Tensor emit = at::log_sigmoid(-gate).unsqueeze(1);
        CtcTensorInput in{.kind = kind_,
                          .enter = emit + log_p(0, U_, 1, 0),
                          .stay = {},
                          .blank = at::log_sigmoid(gate),
                          .usable = usable_,
                          .differs = differs_,
                          .weights = weights_};
        in.stay = conditioned_ ? stays(emit) : in.enter;
        if (!batch_.others.defined()) return in;
        const std::int64_t M = batch_.others.size(2);
        in.other_enter = emit.unsqueeze(2) + log_p(U_, U_ * M, M, 0).view({A_, U_, M, T_});
        in.other_differs = batch_.others.to(at::kLong).ne(before_.unsqueeze(2)).to(at::kDouble);
        const at::Tensor shares = batch_.other_shares.to(at::kDouble);
        in.other_weights = weights_.unsqueeze(2) * shares;
        in.weights = weights_ - in.other_weights.sum(2);
        return in;
    }

    /// The prefix of all labels has a row for ctc alone; elsewhere it does not matter what stays there.
    [[nodiscard]] at::Tensor stays(const at::Tensor& emit) const {
        const std::int64_t rows = std::min(U_, P_ - 1);
        if (rows == 0) return emit.expand({A_, U_, T_});
        const at::Tensor known = emit + log_p(0, rows, 1, 1);
        return rows == U_ ? known : at::cat({known, emit}, 1);
    }

    /// Of a log probability's gradient: what goes to its own token, and what to all tokens of its frame and prefix.
    void gradients(TensorLoss& loss, const CtcTensorResult& r, const at::Tensor& scale) const {
        const at::Tensor bad = bad_.view({A_, 1, 1});
        const auto by = [&](const at::Tensor& d) { return (d * scale).masked_fill(bad, 0.0).to(real_); };
        const at::Tensor enter = by(r.d_enter), stay = by(r.d_stay);  // [A, U, T]
        at::Tensor entering = enter, own = enter + stay, others;
        if (r.d_other.defined()) {
            others = by(r.d_other.flatten(1, 2));
            entering = entering + others.view({A_, U_, -1, T_}).sum(2);
            own = at::cat({own, others}, 1);
        }
        const at::Tensor blank = at::sigmoid(batch_.gate.view({A_, T_}).to(real_));
        const at::Tensor by_blank = (r.d_blank * scale).masked_fill(bad_.unsqueeze(1), 0.0).to(real_);
        const at::Tensor by_gate = by_blank * (1 - blank) - (entering + stay).sum(1) * blank;
        const at::Tensor shares = per_row(entering, stay).neg_().div_(z_).masked_fill_(bad, 0.0);  // [A, T, P]
        at::Tensor d = conditioned_ ? at::bmm(shares, s_).mul_(a_) : a_ * shares;
        d.scatter_add_(2, columns(T_), own.transpose(1, 2)).masked_fill_(bad, 0.0);
        loss.gradients = {d.view({A_ * T_, V_}).to(batch_.logits.scalar_type()),
                          by_gate.masked_fill(bad_.unsqueeze(1), 0.0).flatten()};
        if (!conditioned_) return;
        loss.inputs.push_back(batch_.prefix);
        loss.gradients.push_back(by_prefix(shares, enter, stay, others).to(batch_.prefix.scalar_type()));
    }

    /// [A, T, P]: what entered after each prefix, and what stayed there.
    [[nodiscard]] at::Tensor per_row(const at::Tensor& entering, const at::Tensor& stay) const {
        if (!conditioned_) return (entering + stay).sum(1).unsqueeze(2);
        return (prefixes(entering) + prefixes_later(stay)).transpose(1, 2).contiguous();
    }
    /// Rows of labels as rows of prefixes: that before the label, and that which the label ends.
    [[nodiscard]] at::Tensor prefixes(const at::Tensor& x) const {
        return P_ > U_ ? at::constant_pad_nd(x, {0, 0, 0, 1}) : x;
    }
    [[nodiscard]] at::Tensor prefixes_later(const at::Tensor& x) const {
        return at::constant_pad_nd(x.slice(1, 0, P_ - 1), {0, 0, 1, 0});
    }

    [[nodiscard]] at::Tensor by_prefix(const at::Tensor& shares, const at::Tensor& enter, const at::Tensor& stay,
                                       const at::Tensor& others) const {
        at::Tensor d = at::bmm(shares.transpose(1, 2), a_).mul_(s_);  // [A, P, V]
        const at::Tensor y = labels_.unsqueeze(2);
        d.scatter_add_(2, prefixes(y), prefixes(enter.sum(2, true)));
        d.scatter_add_(2, prefixes_later(y), prefixes_later(stay.sum(2, true)));
        if (others.defined())
            d.scatter_add_(2, prefixes(batch_.others.to(at::kLong)), prefixes(others.sum(2).view({A_, U_, -1})));
        return d.masked_fill_(bad_.view({A_, 1, 1}), 0.0).view({A_ * P_, V_});
    }

    const CtcLossBatch& batch_;
    CtcLossKind kind_;
    std::int64_t A_, U_, T_, V_;
    bool conditioned_;
    std::int64_t P_;
    at::ScalarType real_;
    at::Tensor labels_, before_, usable_, differs_, weights_, sum_weights_;
    at::Tensor a_, s_, z_, log_z_, at_labels_, prefix_at_labels_, bad_;
};

}  // namespace

TensorLoss ctc_tensor_loss(const CtcLossBatch& batch, CtcLossKind kind, const at::Tensor& weights) {
    const at::NoGradGuard no_grad;
    require(batch.labels.dim() == 2 && batch.labels.size(0) > 0 && batch.logits.size(0) % batch.labels.size(0) == 0 &&
                batch.gate.numel() == batch.logits.size(0) && weights.numel() == batch.labels.size(1),
            "ctc_tensor_loss: {} frame rows and {} gates for {} anchors", batch.logits.size(0), batch.gate.numel(),
            batch.labels.size(0));
    require(!batch.others.defined() || kind == CtcLossKind::prefix,
            "ctc_tensor_loss: a teacher's tokens need the prefix loss");
    return TensorPass(batch, kind, weights).run();
}

}  // namespace outrider
