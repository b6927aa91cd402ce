// Bodies of ctc_beam.hpp.
#pragma once

#include <outrider/draft/ctc/detail/ctc_beam.hpp>

#include <algorithm>
#include <cmath>
#include <tuple>

#include <outrider/draft/ctc/detail/beam_kernels.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/beam_tree.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

/// The prefixes of one length, P of each sequence.
struct CtcBeam::Level {
    std::int64_t length = 0, carried = 0;  ///< carried: 2, or 0 where frames know no prefix
    at::Tensor logs;                       ///< [S, n^2] logarithms of the systems without shares
    at::Tensor known;                      ///< [n, S, P] right sides
    at::Tensor cells;                      ///< [S, P, n, n] systems
    at::Tensor joint;                      ///< [T + 2, S, P, V] P(prefix, then a token that enters at frame t), for the
                                           ///< t that are late enough; V + last, column
    at::Tensor last;                       ///< [S, P] last tokens
};

// The forward variables of a prefix solve one triangular system of ones on its diagonal. With b_t and e_t = 1 - b_t the
// probabilities that a frame is blank and that it emits, share_t that of the last token among all tokens, and entry_t
// where this token begins:
//   ends_t   e_t n_{t-1}                   frame t emits right behind the token
//   n_t      entry_t + share_t ends_t      the token is what frame t emits
//   k_t      b_t w_{t-1}                   frame t is blank
//   w_t      n_t + k_t
//   opens_t  e_t w_{t-1}                   weight of all other tokens' shares at t
//   rests_t  e_t k_{t-1}                   frame t emits behind a blank
//   again_t  share_t rests_t               entry of the same token: it needs a blank before it
// A solution subtracts: ends, w and rests come out negative, so that all coefficients are positive, and shares stand in
// the system as they are. Coefficients are powers of e: sums of log b_t and log e_t. Two places, which nothing reads,
// take what a child has to know beside its entries: V + the token before its last, and the last. One gather fills the
// right side, entries and tokens, because they are each second place from n_0 on.
struct CtcBeam::Places {
    std::int64_t T;
    [[nodiscard]] std::int64_t n(std::int64_t t) const { return 2 * t; }
    [[nodiscard]] std::int64_t ends(std::int64_t t) const { return 2 * t - 1; }
    [[nodiscard]] std::int64_t tokens() const { return 2 * T; }
    [[nodiscard]] std::int64_t w(std::int64_t t) const { return 2 * T + 3 + 2 * t; }
    [[nodiscard]] std::int64_t k(std::int64_t t) const { return w(t) - 1; }
    [[nodiscard]] std::int64_t opens(std::int64_t t) const { return 4 * T + t - 1; }
    [[nodiscard]] std::int64_t rests(std::int64_t t) const { return 5 * T + 2 * t - 3; }
    [[nodiscard]] std::int64_t again(std::int64_t t) const { return rests(t) + 1; }
    [[nodiscard]] std::int64_t all() const { return 7 * T - 3; }
    /// Above the diagonal, which no solution reads, stands the empty prefix's: rows 0 .. T, columns from here on.
    [[nodiscard]] std::int64_t empty() const { return all() - T; }
};

OUTRIDER_INLINE CtcBeam::CtcBeam(std::int64_t frames, std::int64_t columns, at::Device device)
    : frames_(frames), columns_(columns) {
    const std::int64_t T = frames, n = Places{T}.all();
    const Places at{T};
    const at::Tensor fixed = aten::full({n, n}, -INFINITY), by_gates = aten::zeros({2 * T, n, n});
    auto logs = fixed.accessor<float, 2>();
    auto by = by_gates.accessor<float, 3>();
    const auto one = [&](std::int64_t row, std::int64_t column) { logs[row][column] = 0; };
    const auto blank = [&](std::int64_t t, std::int64_t row, std::int64_t column) {
        one(row, column), by[2 * t][row][column] = 1;
    };
    const auto emits = [&](std::int64_t t, std::int64_t row, std::int64_t column) {
        one(row, column), by[2 * t + 1][row][column] = 1;
    };
    for (std::int64_t t = 1; t < T; ++t) {
        emits(t, at.ends(t), at.n(t - 1)), emits(t, at.opens(t), at.w(t - 1)), one(at.w(t - 1), at.n(t - 1));
        if (t > 1) emits(t, at.rests(t), at.k(t - 1)), one(at.w(t - 1), at.k(t - 1));
        if (t + 1 < T) blank(t, at.k(t), at.w(t - 1));
    }
    // A token enters at t behind blanks alone: on a diagonal, and in a row below it, which adds over the frames.
    for (std::int64_t t = 0; t < T; ++t)
        for (const std::int64_t row : {t, T}) {
            emits(t, row, at.empty() + t);
            for (std::int64_t r = 0; r < t; ++r) blank(r, row, at.empty() + t);
        }
    fixed_ = fixed.view({n * n}).to(device), by_gates_ = by_gates.view({2 * T, n * n}).to(device);
    numbers_ = aten::arange(columns, fixed_.options()), behind_ = aten::full({1}, columns, fixed_.options());
}

/// Right sides are zero where no gather writes, and tokens' numbers stand there for good. All shapes use the same
/// memory.
OUTRIDER_INLINE void CtcBeam::reserve(std::int64_t prefixes) {
    if (room_ >= prefixes) return;
    for (room_ = std::max<std::int64_t>(room_, 16); room_ < prefixes;) room_ *= 2;
    known_ = aten::zeros({frames_, Places{frames_}.all(), room_}, fixed_.options());
    joint_ = aten::empty({frames_ + 2, room_, columns_}, fixed_.options());
    joint_.select(0, frames_ + 1).copy_(numbers_.expand({room_, columns_}));
    ++generation_;
}

OUTRIDER_INLINE at::Tensor CtcBeam::search(const at::Tensor& frames, std::int64_t nodes, CtcBeamScores& scores,
                                           bool kernels) {
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
                                                               CtcBeamScores& scores) {
    const std::int64_t T = frames_, V = columns_, S = frames.size(0) / T, depth = beam_levels(nodes, T);
    reserve(S * nodes);
    const at::Tensor logits = frames.view({S, T, V + 2}).narrow(2, 0, V).transpose(0, 1).unsqueeze(2);  // [T, S, 1, V]
    const auto shares_of = [&](const at::Tensor& added, std::int64_t first) {  // of frames from the first on
        const at::Tensor sum = aten::empty({T - first, S, added.size(0) / S, V}, added.options());
        at::Tensor to = sum;
        return aten::softmax(aten::add_out(to, logits.narrow(0, first, T - first), added.view({1, S, -1, V})), -1);
    };
    const at::Tensor root = scores.root();
    at::Tensor shares = root.defined() ? shares_of(root, 0) : aten::softmax(logits, -1);
    Level level;
    level.carried = root.defined() ? 2 : 0;
    level.logs = aten::addmm(fixed_, aten::log_sigmoid(frames.narrow(1, V, 2)).view({S, 2 * T}), by_gates_);
    at::Tensor psi = begin(level, shares, beam_width(nodes, V, 0));
    std::vector<at::Tensor> found;
    for (;;) {
        auto [best, place] = psi.view({S, -1}).topk(beam_width(nodes, V, level.length), 1);
        found.push_back(best), found.push_back(place);
        if (level.length + 1 == depth) return found;
        enter(level, place);
        if (root.defined()) {
            take_tokens(level, place, scores.tokens(level.length), level.length + 1 < depth);
            shares = shares_of(scores.behind(level.length), level.length);
        } else {
            level.last = level.length == 1 ? place : aten::remainder(place, V);
            shares = shares.narrow(0, 1, T - level.length);
        }
        psi = expand(level, shares);
    }
}

/// Psi of the first tokens [S, V].
OUTRIDER_INLINE at::Tensor CtcBeam::begin(Level& level, const at::Tensor& shares, std::int64_t width) const {
    const std::int64_t T = frames_;
    make(level, width);
    const at::Tensor opens = level.cells.select(1, 0).narrow(1, 0, T + 1).narrow(2, Places{T}.empty(), T);
    const at::Tensor all = aten::bmm(opens, shares.squeeze(2).transpose(0, 1));  // [S, T + 1, V]
    level.joint = all.narrow(1, 0, T).transpose(0, 1).unsqueeze(2);
    return all.select(1, T);
}

/// Systems for prefixes of another number.
OUTRIDER_INLINE void CtcBeam::make(Level& level, std::int64_t width) const {
    const std::int64_t S = level.logs.size(0), n = Places{frames_}.all();
    level.cells = aten::empty({S, width, n, n}, level.logs.options());
    at::Tensor cells = level.cells.view({S, width, n * n});
    aten::exp_out(cells, level.logs.unsqueeze(1).expand({S, width, n * n}));
}

/// The chosen children become the level's prefixes.
OUTRIDER_INLINE void CtcBeam::enter(Level& level, const at::Tensor& place) const {
    const std::int64_t T = frames_, n = Places{T}.all(), S = place.size(0), P = place.size(1), first = level.length;
    const std::int64_t rows = T - first + (first > 0 ? level.carried : 0);
    level.known = known_.select(0, first).as_strided({n, S, P}, {room_, P, 1}, known_.stride(0) * first);
    at::Tensor known = level.known.slice(0, Places{T}.n(first), Places{T}.n(first + rows), 2);
    const at::Tensor joint = level.joint.narrow(0, first, rows).flatten(2);
    aten::gather_out(known, joint, 2, place.unsqueeze(0).expand({rows, S, P}));
    if (level.cells.size(1) != P) make(level, P);
    level.joint = joint_.as_strided({T + 2, S, P, columns_}, {room_ * columns_, P * columns_, columns_, 1}, 0);
    ++level.length;
}

/// For the scores' `tokens`, and, if there is more to come, for the children of these prefixes.
OUTRIDER_INLINE void CtcBeam::take_tokens(Level& level, const at::Tensor& place, const at::Tensor& tokens,
                                          bool more) const {
    const std::int64_t T = frames_, at = Places{T}.tokens();
    tokens.copy_(level.length == 1 ? place.unsqueeze(2) : level.known.slice(0, at, at + 3, 2).permute({1, 2, 0}));
    level.last = tokens.select(2, tokens.size(2) - 1);
    at::Tensor before = level.joint.select(0, T);
    if (more) aten::add_out(before, level.last.unsqueeze(2), behind_.expand({columns_}));
}

/// P(the draft begins with a prefix and goes on with a token, that token entered at a frame), from the prefix's
/// entries and the shares of the frames that are late enough. Returns Psi [S, P, V].
OUTRIDER_INLINE at::Tensor CtcBeam::expand(Level& level, const at::Tensor& shares) const {
    const std::int64_t T = frames_, n = Places{T}.all(), V = columns_, first = level.length, rows = T - first;
    const std::int64_t S = level.last.size(0), P = level.last.size(1);
    const Places at{T};
    const at::Tensor last = level.last.unsqueeze(0).unsqueeze(3);
    if (rows > 1) {  // no token of the longest prefixes stays, and none comes again
        const std::int64_t once = at.n(first) * n + at.ends(first), twice = at.again(first) * n + at.rests(first);
        at::Tensor stays = level.cells.as_strided({rows, S, P, 2}, {2 * (n + 1), P * n * n, n * n, twice - once}, once);
        aten::gather_out(stays, shares.expand({rows, S, P, V}), 3, last.expand({rows, S, P, 2}));
    }
    const at::Tensor sides = level.known.permute({1, 2, 0}).unsqueeze(3);
    const at::Tensor solution = aten::linalg_solve_triangular(level.cells, sides, false, true, true);
    at::Tensor joint = level.joint.narrow(0, first, rows);
    aten::mul_out(joint, shares, solution.narrow(2, at.opens(first), rows).permute({2, 0, 1, 3}));
    joint.scatter_(3, last.expand({rows, S, P, 1}), solution.slice(2, at.again(first), n, 2).permute({2, 0, 1, 3}));
    return rows > 1 ? joint.sum(0) : joint.select(0, 0);
}

}  // namespace outrider::detail
