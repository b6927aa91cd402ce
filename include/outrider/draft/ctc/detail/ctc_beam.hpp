// The best-first draft tree of CTC frames as tensor operations, on any device: a beam over prefixes of one length.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

namespace outrider::detail {

/// What a drafted prefix adds to the scores of the tokens behind it.
class CtcBeamScores {
public:
    virtual ~CtcBeamScores() = default;
    /// Of every sequence's empty prefix: [S, V]; undefined where frames know no prefix.
    [[nodiscard]] virtual at::Tensor root() = 0;
    /// With kernels: of the prefixes that are one token longer than those of the last call: [S P, V]. `parent` [S, P]
    /// int64 places among these in their sequence, `column` [S, P] the tokens that were added.
    [[nodiscard]] virtual at::Tensor longer(const at::Tensor& parent, const at::Tensor& column) = 0;
    /// Without kernels: of the prefixes of `length` tokens [S P, V], after these were written to `tokens(length)`:
    /// [S, P, 2] int64, V and the column of the token before the last, then the last's; of length 1 [S, P, 1].
    [[nodiscard]] virtual at::Tensor tokens(std::int64_t length) = 0;
    [[nodiscard]] virtual at::Tensor behind(std::int64_t length) = 0;
};

/// The N largest Psi (see ctc/prefix_forward.hpp), exactly, level by level: of the N best prefixes those of length d
/// are among the N best of that length, and so are their beginnings, since Psi(l c) <= Psi(l). So N prefixes of each
/// length are enough, whatever they are. Forward variables are not divided by Psi here: what a float cannot hold of
/// them is far below any tree. A sequence whose frames or scores hold NaN drafts fewer tokens, or none.
class CtcBeam {
public:
    CtcBeam(std::int64_t frames, std::int64_t columns, at::Device device);

    /// `frames` [S T, V + 2] logits, the gate's (the blank's log odds), and its negative; f32. Returns what `fetched`
    /// takes, on the device, for nodes that fit (beam_fits). `kernels`: with those of the compiled library where the
    /// device has them (beam_kernels.hpp), else by tensor operations alone; the trees are the same up to rounding.
    [[nodiscard]] at::Tensor search(const at::Tensor& frames, std::int64_t nodes, CtcBeamScores& scores,
                                    bool kernels = true);
    /// What `beam_tree` takes, [S, n] on the host: the one copy.
    [[nodiscard]] at::Tensor fetched(const at::Tensor& found, std::int64_t nodes) const;

    /// Memory that searches by tensor operations keep: for so many prefixes of one length, of all sequences together.
    void reserve(std::int64_t prefixes);
    /// Changes whenever that memory has moved.
    [[nodiscard]] std::int64_t generation() const { return generation_; }

private:
    struct Level;
    struct Places;
    [[nodiscard]] std::vector<at::Tensor> by_kernels(const at::Tensor& frames, std::int64_t nodes,
                                                     CtcBeamScores& scores) const;
    [[nodiscard]] std::vector<at::Tensor> by_operations(const at::Tensor& frames, std::int64_t nodes,
                                                        CtcBeamScores& scores);
    [[nodiscard]] at::Tensor begin(Level& level, const at::Tensor& shares, std::int64_t width) const;
    void make(Level& level, std::int64_t width) const;
    void enter(Level& level, const at::Tensor& place) const;
    void take_tokens(Level& level, const at::Tensor& place, const at::Tensor& tokens, bool more) const;
    [[nodiscard]] at::Tensor expand(Level& level, const at::Tensor& shares) const;

    std::int64_t frames_, columns_, room_ = 0, generation_ = 0;
    at::Tensor fixed_, by_gates_;  // logarithms of a system: [n^2], and what gates add, [2 T, n^2]
    at::Tensor numbers_, behind_;  // f32: [V] 0, 1, ..; [1] V
    at::Tensor known_, joint_;     // [T, n, room] right sides of each length; [T + 2, room, V] of children
};

}  // namespace outrider::detail

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_beam-inl.hpp>
#endif
