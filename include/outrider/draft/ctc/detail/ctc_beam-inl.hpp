// Bodies of ctc_beam.hpp.
#pragma once

#include <outrider/draft/ctc/detail/ctc_beam.hpp>

#include <cmath>

#include <outrider/draft/ctc/detail/beam_kernels.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

/// The prefixes of one length, P of each sequence.
struct CtcBeam::Level {
    at::Tensor column;              ///< [S, P] last tokens; undefined for the empty prefix
    at::Tensor entry;               ///< [S, T, P] probability that the prefix begins to be its last token at a frame
    at::Tensor cells;               ///< [S, P, T - 1, T - 1] zeros, beside the diagonal what `expand` writes
    at::Tensor emit;                ///< [S, T] minus the probability that a frame is no blank
    std::vector<at::Tensor> found;  ///< psi [S, P] and place [S, P] of all levels so far
};

// Weight at frame t of what was label at s and no longer is since (k = 1: through blanks alone; k = 0: or still is it):
// emit_t times the blanks from s to t. As logarithms they are sums of log sigmoid(gate) and log sigmoid(-gate), which
// one product with a matrix of ones takes for all s, k and t.
OUTRIDER_INLINE CtcBeam::CtcBeam(std::int64_t frames, std::int64_t columns, at::Device device)
    : frames_(frames), columns_(columns) {
    const std::int64_t T = frames;
    const at::Tensor sums = aten::zeros({2 * T, T * 2 * T}), mask = aten::full({T * 2 * T}, -INFINITY);
    auto one = sums.accessor<float, 2>();
    auto open = mask.accessor<float, 1>();
    for (std::int64_t s = 0; s < T; ++s)
        for (std::int64_t k = 0; k < 2; ++k)
            for (std::int64_t t = s + k; t < T; ++t) {
                const std::int64_t cell = (s * 2 + k) * T + t;
                open[cell] = 0;
                one[2 * t + 1][cell] = 1;
                for (std::int64_t u = s; u < t; ++u) one[2 * u][cell] = 1;
            }
    sums_ = sums.to(device), mask_ = mask.to(device);
}

/// [S, T, 2 T]: of what was label at s, for k = 0, then for k = 1.
OUTRIDER_INLINE at::Tensor CtcBeam::weights_of(const at::Tensor& frames) const {
    const std::int64_t T = frames_, S = frames.size(0) / T;
    const at::Tensor gates = aten::log_sigmoid(frames.narrow(1, columns_, 2)).view({S, 2 * T});
    return aten::addmm(mask_, gates, sums_).exp_().view({S, T, 2 * T});
}

OUTRIDER_INLINE at::Tensor CtcBeam::search(const at::Tensor& frames, std::int64_t nodes, CtcBeamScores& scores,
                                           bool kernels) const {
    const std::vector<at::Tensor> found = kernels && has_beam_kernels(frames.device())
                                              ? by_kernels(frames, nodes, scores)
                                              : by_operations(frames, nodes, scores);
    return aten::cat(found, 1);  // as floats, which hold all places
}

OUTRIDER_INLINE at::Tensor CtcBeam::fetched(const at::Tensor& found, std::int64_t nodes) const {
    at::Tensor all = found.to(at::kCPU, at::kFloat);
    std::int64_t begin = 0;
    for (std::int64_t d = 0; d < beam_levels(nodes, frames_); ++d) {
        const std::int64_t width = beam_width(nodes, columns_, d);
        all.narrow(1, begin, width).log_();
        begin += 2 * width;
    }
    return all;
}

OUTRIDER_INLINE std::vector<at::Tensor> CtcBeam::by_kernels(const at::Tensor& frames, std::int64_t nodes,
                                                            CtcBeamScores& scores) const {
    std::vector<at::Tensor> found;
    BeamStep step;
    at::Tensor more = scores.root();
    for (std::int64_t d = 0, depth = beam_levels(nodes, frames_);; ++d) {
        step = beam_step(frames, more, step, frames_, beam_width(nodes, columns_, d));
        found.push_back(step.psi), found.push_back(step.place);
        if (d + 1 == depth) return found;
        more = scores.longer(d == 0 ? at::Tensor() : step.parent, step.column);
    }
}

OUTRIDER_INLINE std::vector<at::Tensor> CtcBeam::by_operations(const at::Tensor& frames, std::int64_t nodes,
                                                               CtcBeamScores& scores) const {
    const std::int64_t T = frames_, S = frames.size(0) / T, depth = beam_levels(nodes, T);
    const at::Tensor logits = frames.narrow(1, 0, columns_).view({S, T, 1, columns_}), weights = weights_of(frames);
    Level level;
    if (depth > 1) level.emit = weights.view({S, T, 2, T}).select(2, 0).diagonal(0, 1, 2).neg();
    expand(level, logits, weights, scores.root());
    for (std::int64_t d = 0;; ++d) {
        choose(level, beam_width(nodes, columns_, d));
        if (d + 1 == depth) return level.found;
        const at::Tensor place = level.found.back();
        const bool first = d == 0;  // prefixes of one token
        const at::Tensor parent = first ? at::Tensor() : aten::floor_divide(place, columns_);
        level.column = first ? place : aten::remainder(place, columns_);
        expand(level, logits, weights, scores.longer(parent, level.column));
    }
}

/// P(the draft begins with a prefix and goes on with a token, that token entered at a frame), in place of `entry`:
/// [S, T, P, V].
OUTRIDER_INLINE void CtcBeam::expand(Level& level, const at::Tensor& logits, const at::Tensor& weights,
                                     const at::Tensor& scores) const {
    const std::int64_t S = logits.size(0), T = frames_, V = columns_;
    const bool empty = !level.column.defined();
    const std::int64_t P = empty ? 1 : level.column.size(1);
    at::Tensor shares =
        aten::softmax(scores.defined() ? logits + scores.view({S, 1, P, V}) : logits.expand({S, T, P, V}), -1);
    if (empty) {
        level.entry = shares.mul_(weights.select(1, 0).narrow(1, 0, T).view({S, T, 1, 1}));
        return;
    }
    const at::Tensor last = level.column.view({S, 1, P, 1}).expand({S, T, P, 1});
    const at::Tensor stay = shares.gather(3, last);
    if (!level.cells.defined() || level.cells.size(1) != P)
        level.cells = aten::zeros({S, P, T - 1, T - 1}, shares.options());
    if (T > 2) {
        at::Tensor below = level.cells.diagonal(-1, 2, 3);  // label_{i + 1} = entry_i + stay_i label_i
        aten::mul_out(below, stay.squeeze(3).transpose(1, 2).narrow(2, 1, T - 2),
                      level.emit.unsqueeze(1).narrow(2, 1, T - 2));
    }
    const at::Tensor label = aten::linalg_solve_triangular(
        level.cells, level.entry.transpose(1, 2).narrow(2, 0, T - 1).unsqueeze(3), false, true, true);
    const at::Tensor both = aten::bmm(label.squeeze(3), weights.narrow(1, 1, T - 1));  // [S, P, 2 T]
    const auto by_frame = [&](std::int64_t k) { return both.narrow(2, k * T, T).transpose(1, 2).unsqueeze(3); };
    level.entry = shares.mul_(by_frame(0));
    level.entry.scatter_(3, last, stay * by_frame(1));  // a token that comes again needs a blank before it
}

/// The best of a level's children: their psi and place, and where they are entered.
OUTRIDER_INLINE void CtcBeam::choose(Level& level, std::int64_t width) const {
    const at::Tensor joint = level.entry;
    const std::int64_t S = joint.size(0), T = frames_, places = joint.size(2) * joint.size(3);
    const auto [psi, place] = joint.sum(1).view({S, places}).topk(width, 1);
    level.entry = joint.view({S, T, places}).gather(2, place.unsqueeze(1).expand({S, T, width}));
    level.found.push_back(psi);
    level.found.push_back(place);
}

}  // namespace outrider::detail
