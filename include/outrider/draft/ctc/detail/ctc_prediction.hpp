// The prediction network during decoding: what a drafted prefix adds to the scores of candidate tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <outrider/core/detail/thread_team.hpp>
#include <outrider/core/types.hpp>
#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/draft/ctc/detail/ctc_search.hpp>

namespace outrider {

/// s_l = out g(l), where g(l) = silu(W [E(last), E(last but one), h] + b) is of a sum of three parts: those of
/// draft-vocabulary tokens are looked up, those of the committed text computed once a round.
class CtcPrediction {
public:
    virtual ~CtcPrediction() = default;

    /// What a sequence's prediction begins from. `before` may be kNoToken; `feature` [H] may be empty.
    struct Text {
        std::span<const float> feature;
        TokenId before = kNoToken, pending = kNoToken;
    };
    /// What one draft needs besides; several drafts at once need one each.
    struct Scratch {
        virtual ~Scratch() = default;
    };

    /// Of matrices and look-up tables.
    [[nodiscard]] virtual std::size_t bytes() const = 0;
    [[nodiscard]] virtual std::unique_ptr<Scratch> make_scratch() const = 0;

    /// Begins a round of these texts, which are known by their place from then on. Returns, where `root_states` is set
    /// and the network has no output rows of its own, what the target's rows are to be multiplied by for every text's
    /// empty prefix [texts, H]; else nothing.
    [[nodiscard]] virtual std::vector<float> start(std::span<const Text> texts, bool root_states) = 0;

    /// s_l(c) over the whole draft vocabulary: [prefixes, stride]. Every member of a team calls it inside one run, with
    /// one scratch; a barrier must follow before `out` is read.
    virtual void scores(TeamMember& member, std::size_t text, std::span<const CtcPrefix> prefixes, float* out,
                        std::int64_t stride, Scratch& scratch) const = 0;

    /// Adds the empty prefix's scores to T frames of logits [T, V]. Only sums of both have a meaning: training sees no
    /// frame without a prefix, so that alone neither says which tokens are likely. The calling thread does it alone.
    virtual void fold_root(std::size_t text, std::span<float> logits, Scratch& scratch) const = 0;

    /// Candidates of one draft; call before `factors`.
    virtual void choose(std::span<const TokenId> candidates, Scratch& scratch) const = 0;

    /// f_l(c) of every candidate, relative to the empty prefix: exp(prefix_out[c] . (g(l) - g(empty))). After
    /// `fold_root`.
    virtual void factors(std::size_t text, const PrefixContext& prefix, std::span<float> out,
                         Scratch& scratch) const = 0;
};

}  // namespace outrider
