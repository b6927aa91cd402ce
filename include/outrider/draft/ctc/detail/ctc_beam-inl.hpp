// Bodies of ctc_beam.hpp.
#pragma once

#include <outrider/draft/ctc/detail/ctc_beam.hpp>

#include <tuple>

#include <outrider/draft/ctc/detail/beam_kernels.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

/// The prefixes of one length, P of each sequence. What a child has to know beside its entries, its token and what
/// stands for the token before it, lies in `joint` in front of the frames: one gather takes everything.
struct CtcBeam::Level {
    std::int64_t carried = 0;  ///< 2, or 0 where frames know no prefix
    at::Tensor joint;  ///< [carried + T, S, P, V] column, V + last; P(prefix, then a token that enters at frame t)
    at::Tensor known;  ///< [carried + 4 T, S, P] the same of the prefix; behind it zeros: right sides
    at::Tensor cells;  ///< [S, P, 4 T, 4 T] their systems
    at::Tensor last;   ///< [S, P] last tokens
};

// The forward variables of a prefix solve one triangular system. With o_t the odds of a blank, so that a frame emits
// with 1 / (1 + o_t), share_t that of the last token among all tokens, and entry_t where this token begins:
//   ends_t    -(1 + o_t) ends_t + share_{t-1} ends_{t-1} = entry_{t-1}   minus P(frame t emits right behind the token)
//   rests_t   -(1 + o_t) rests_t + o_{t-1} (ends_{t-1} + rests_{t-1}) = 0   minus P(frame t emits behind a blank)
//   opens_t   opens_t + ends_t + rests_t = 0            weight of all other tokens' shares at t
//   again_t   again_t + share_t rests_t = 0             entry of the same token: it needs a blank before it
// Signs are such that shares stand in it as they are. Of the empty prefix the right side of rests_0 is 1.
// First stand ends_1 .. ends_T, then the others from 0 on, kind by kind.
OUTRIDER_INLINE CtcBeam::CtcBeam(std::int64_t frames, std::int64_t columns, at::Device device)
    : frames_(frames), columns_(columns) {
    const std::int64_t T = frames, n = 4 * T;
    const at::Tensor fixed = aten::zeros({n, n}), by_odds = aten::zeros({T, n, n}), empty = aten::zeros({n, 1});
    auto one = fixed.accessor<float, 2>();
    auto odds = by_odds.accessor<float, 3>();
    one[T - 1][T - 1] = -1;  // ends_T, which nothing asks for
    for (std::int64_t t = 0; t < T; ++t) {
        const std::int64_t ends = t - 1, rests = kRests * T + t, opens = kOpens * T + t, again = kAgain * T + t;
        one[opens][opens] = one[opens][rests] = one[again][again] = 1;
        one[rests][rests] = odds[t][rests][rests] = -1;
        if (t + 1 < T) odds[t][rests + 1][rests] = 1;
        if (t == 0) continue;
        one[opens][ends] = 1;
        one[ends][ends] = odds[t][ends][ends] = -1;
        if (t + 1 < T) odds[t][rests + 1][ends] = 1;
    }
    empty.accessor<float, 2>()[kRests * T][0] = 1;
    fixed_ = fixed.view({n * n}).to(device), by_odds_ = by_odds.view({T, n * n}).to(device), empty_ = empty.to(device);
    numbers_ = aten::arange(columns, fixed_.options()), behind_ = aten::full({1}, columns, fixed_.options());
}

/// Without shares: [S, 4 T, 4 T].
OUTRIDER_INLINE at::Tensor CtcBeam::system_of(const at::Tensor& frames) const {
    const std::int64_t T = frames_;
    // Larger odds would lose what follows blanks where Psi is small: rests_t is divided by them, then multiplied. What
    // this adds to a Psi is below 1e-16.
    const at::Tensor odds = aten::clamp_max(frames.select(1, columns_), 40).exp_();
    return aten::addmm(fixed_, odds.view({-1, T}), by_odds_).view({-1, 4 * T, 4 * T});
}

/// Of one kind, [T, S, P, 1].
OUTRIDER_INLINE at::Tensor CtcBeam::unknowns(const at::Tensor& solution, std::int64_t which) const {
    return solution.narrow(2, which * frames_, frames_).permute({2, 0, 1, 3});
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
    const std::int64_t T = frames_, V = columns_, S = frames.size(0) / T, depth = beam_levels(nodes, T);
    const at::Tensor logits = frames.view({S, T, V + 2}).narrow(2, 0, V).transpose(0, 1).unsqueeze(2);  // [T, S, 1, V]
    const auto shares_of = [&](const at::Tensor& added) {
        const at::Tensor sum = aten::empty({T, S, added.size(0) / S, V}, added.options());
        at::Tensor to = sum;
        return aten::softmax(aten::add_out(to, logits, added.view({1, S, -1, V})), -1);
    };
    const at::Tensor root = scores.root(), system = system_of(frames);
    at::Tensor shares = root.defined() ? shares_of(root) : aten::softmax(logits, -1);
    Level level;
    const at::Tensor first = aten::linalg_solve_triangular(system, empty_.expand({S, 4 * T, 1}), false);
    level.joint = shares * unknowns(first.unsqueeze(1), kOpens);
    std::vector<at::Tensor> found;
    for (std::int64_t d = 0;; ++d) {
        const at::Tensor joint = level.joint.narrow(0, level.carried, T);
        auto [psi, place] = joint.sum(0).view({S, -1}).topk(beam_width(nodes, V, d), 1);
        found.push_back(psi), found.push_back(place);
        if (d + 1 == depth) return found;
        if (root.defined()) level.carried = 2;
        enter(level, place, system);
        if (root.defined()) {
            take_tokens(level, place, scores.tokens(d + 1), d + 2 < depth);
            shares = shares_of(scores.behind(d + 1));
        } else {
            level.last = d == 0 ? place : aten::remainder(place, V);
        }
        expand(level, shares);
    }
}

/// Room for prefixes of another number.
OUTRIDER_INLINE void CtcBeam::make(Level& level, const at::Tensor& system, std::int64_t width) const {
    const std::int64_t T = frames_, S = system.size(0);
    level.known = aten::zeros({level.carried + 4 * T, S, width}, system.options());
    level.cells = aten::empty({S, width, 4 * T, 4 * T}, system.options());
    level.cells.copy_(system.unsqueeze(1).expand_as(level.cells));
    level.joint = aten::empty({level.carried + T, S, width, columns_}, system.options());
    if (level.carried > 0) level.joint.select(0, 0).copy_(numbers_.expand({S, width, columns_}));
}

/// The chosen children become the level's prefixes.
OUTRIDER_INLINE void CtcBeam::enter(Level& level, const at::Tensor& place, const at::Tensor& system) const {
    const at::Tensor joint = level.joint;
    const std::int64_t rows = joint.size(0), S = place.size(0), width = place.size(1);
    if (!level.known.defined() || level.known.size(2) != width) make(level, system, width);
    at::Tensor known = level.known.narrow(0, level.carried + frames_ - rows, rows);
    aten::gather_out(known, joint.view({rows, S, -1}), 2, place.unsqueeze(0).expand({rows, S, width}));
}

/// For the scores' `tokens`, and, if there is more to come, for the children of these prefixes.
OUTRIDER_INLINE void CtcBeam::take_tokens(Level& level, const at::Tensor& place, const at::Tensor& tokens,
                                          bool more) const {
    const bool first = tokens.size(2) == 1;
    tokens.copy_(first ? place.unsqueeze(2) : level.known.narrow(0, 0, level.carried).permute({1, 2, 0}));
    level.last = tokens.select(2, 0);
    at::Tensor before = level.joint.select(0, 1);
    if (more) aten::add_out(before, level.last.unsqueeze(2), behind_.expand({columns_}));
}

/// P(the draft begins with a prefix and goes on with a token, that token entered at a frame), from the prefix's
/// entries.
OUTRIDER_INLINE void CtcBeam::expand(Level& level, const at::Tensor& shares) const {
    const std::int64_t T = frames_, n = 4 * T, V = columns_, S = level.last.size(0), P = level.last.size(1);
    const at::Tensor last = level.last.unsqueeze(0).unsqueeze(3);
    // share_t, from t = 1 on, twice: at ends_t in the row of ends_{t+1}, and at rests_t in the row of again_t.
    at::Tensor stays = level.cells.as_strided({T - 1, S, P, 2}, {n + 1, P * n * n, n * n, kAgain * T * n + T + 1},
                                              level.cells.storage_offset() + n);
    aten::gather_out(stays, shares.narrow(0, 1, T - 1).expand({T - 1, S, P, V}), 3, last.expand({T - 1, S, P, 2}));
    const at::Tensor sides = level.known.narrow(0, level.carried, n).permute({1, 2, 0}).unsqueeze(3);
    const at::Tensor solution = aten::linalg_solve_triangular(level.cells, sides, false);
    at::Tensor joint = level.joint.narrow(0, level.carried, T);
    aten::mul_out(joint, shares, unknowns(solution, kOpens));
    joint.scatter_(3, last.expand({T, S, P, 1}), unknowns(solution, kAgain));
}

}  // namespace outrider::detail
