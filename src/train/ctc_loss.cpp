// All anchors of a batch, shared out over the team, as one function of automatic differentiation.
#include "train/ctc_loss.hpp"

#include <outrider/core/error.hpp>

#include "ctc_loss_anchor.hpp"

namespace outrider {

namespace {

struct LossAndGradients {
    double loss = 0.0;
    at::Tensor d_logits, d_gate, d_prefix;
};

template <typename Stored, typename Real>
LossAndGradients all_anchors(const CtcLossBatch& batch, const CtcLossOptions& options, const CtcLossShape& shape,
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
        CtcAnchorLoss<Stored, Real> worker(shape, options);
        const auto mine = member.range(shape.anchors);
        for (std::int64_t i = mine.begin; i < mine.end; ++i) {
            const std::int64_t a = i * shape.frames * shape.columns, s = i * shape.prefixes * shape.columns,
                               o = i * shape.labels * shape.others;
            worker.anchor({logits + a, gate + i * shape.frames, prefix ? prefix + s : nullptr,
                           labels + i * shape.labels, others + o, shares_of_others + o, d_logits + a,
                           d_gate + i * shape.frames, d_prefix ? d_prefix + s : nullptr});
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
std::int64_t checked_others(const CtcLossBatch& batch, const CtcLossOptions& options, const CtcLossShape& shape) {
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

CtcLossShape checked(const CtcLossBatch& batch, const CtcLossOptions& options) {
    CtcLossShape shape;
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
        for (std::int64_t k = 0; k < usable_labels(labels, shape.labels, shape.frames); ++k) {
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
    const CtcLossShape shape = checked(batch, options);
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
        default: fail("ctc_loss: logits must be bfloat16, float32 or float64");
    }
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct CtcLossFunction : torch::autograd::Function<CtcLossFunction> {
    static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& gate,
                              const at::Tensor& prefix, const CtcLossBatch* batch, const CtcLossOptions* options,
                              LossStats* stats, ThreadTeam* team) {
        const bool conditioned = prefix.numel() > 0;  // an autograd function takes no undefined tensors
        LossAndGradients result = dispatch(
            {logits, gate, conditioned ? prefix : at::Tensor{}, batch->labels, batch->others, batch->other_shares},
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
