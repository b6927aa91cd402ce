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
    /// Of the prefixes that are one token longer than those of the last call: [S P, V]. `parent` [S, P] int64 places
    /// among these in their sequence, `column` [S, P] the tokens that were added.
    [[nodiscard]] virtual at::Tensor longer(const at::Tensor& parent, const at::Tensor& column) = 0;
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
                                    bool kernels = true) const;
    /// What `beam_tree` takes, [S, n] on the host: the one copy.
    [[nodiscard]] at::Tensor fetched(const at::Tensor& found, std::int64_t nodes) const;

private:
    struct Level;
    [[nodiscard]] std::vector<at::Tensor> by_kernels(const at::Tensor& frames, std::int64_t nodes,
                                                     CtcBeamScores& scores) const;
    [[nodiscard]] std::vector<at::Tensor> by_operations(const at::Tensor& frames, std::int64_t nodes,
                                                        CtcBeamScores& scores) const;
    [[nodiscard]] at::Tensor weights_of(const at::Tensor& frames) const;
    void expand(Level& level, const at::Tensor& logits, const at::Tensor& weights, const at::Tensor& scores) const;
    void choose(Level& level, std::int64_t width) const;

    std::int64_t frames_, columns_;
    at::Tensor sums_, mask_;  // of weights_of
};

}  // namespace outrider::detail

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_beam-inl.hpp>
#endif
