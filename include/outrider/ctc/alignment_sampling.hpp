// Drafts that are samples: alignments drawn frame by frame and collapsed. The law of a collapsed sample is the product
// of the exact conditionals q(c | l), so that such drafts can be verified without bias at any temperature.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <outrider/core/rng.hpp>
#include <outrider/core/types.hpp>
#include <outrider/ctc/collapse.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Sampled chains as one tree; chains with equal beginnings share nodes.
struct SampledDraft {
    /// One collapsed alignment.
    struct Chain {
        std::vector<NodeIndex> nodes;  ///< below the root, in text order
        /// Cut at the depth limit: what follows its last node was not drawn. There an acceptance rule must use the
        /// target's p alone. A chain that is not cut has ended by chance, with probability 1 - sum_c q(c | l), and rule
        /// V2 (reject, sample from (p - q)+) applies.
        bool cut = false;
    };

    TokenTree tree;             ///< log_q: exact conditionals, sub-normalised (their sum is 1 - q(end | l))
    std::vector<Chain> chains;  ///< in the order drawn; independent and of equal law
};

/// Draws alignments. Without a condition the frames are independent; with one, frame t draws from pi_t(. | l) where l
/// is what the frames before it collapse to. Symbol of frame t of chain i uses draw i * T + t of the key. A token that
/// is no candidate (the frames' `other`) ends the chain. Reusable scratch; keep one per thread.
template <typename Scalar>
class BasicAlignmentSampler {
public:
    using Frames = BasicCtcFrames<Scalar>;

    /// `chains` chains of at most `max_depth` nodes each: a tree of at most chains * min(max_depth, T) nodes. The key
    /// should have purpose RandomPurpose::draft, so that drafts are independent of the target's picks.
    template <PrefixCondition<Scalar> Condition = Unconditioned>
    [[nodiscard]] SampledDraft draw(TokenId pending, const Frames& frames, std::size_t chains, std::size_t max_depth,
                                    const RandomKey& key, Condition&& condition = {}) {
        frames_ = &frames;
        TokenTree::Builder builder(pending, chains * std::min(max_depth, frames.frames()));
        std::vector<SampledDraft::Chain> drawn(chains);
        forward_.start(frames);
        state_.assign(1, forward_.root(condition));
        for (std::size_t i = 0; i < chains; ++i)
            drawn[i] = chain(builder, max_depth, key, i * frames.frames(), condition);
        return {std::move(builder).build(), std::move(drawn)};
    }

    /// q(c | l) of every candidate after `node` of the last draw: q [stride], zero beyond the candidates. The frames of
    /// that draw must still live.
    void conditional(NodeIndex node, Scalar* q) const { forward_.children(state_[static_cast<std::size_t>(node)], q); }

private:
    static constexpr std::int32_t kUnlisted = -2;

    template <typename Condition>
    SampledDraft::Chain chain(TokenTree::Builder& builder, std::size_t max_depth, const RandomKey& key,
                              std::uint64_t first_draw, Condition& condition) {
        SampledDraft::Chain result;
        NodeIndex at = 0;
        std::int32_t previous = kBlank;
        for (std::size_t t = 0; t < frames_->frames() && result.nodes.size() < max_depth; ++t) {
            const std::int32_t state = state_[static_cast<std::size_t>(at)];
            const std::int32_t symbol = symbol_of(state, t, key.uniform(first_draw + t));
            if (symbol == kUnlisted) return result;
            if (symbol != kBlank && symbol != previous) {
                at = descend(builder, at, symbol, condition);
                if (at == kNoNode) return result;
                result.nodes.push_back(at);
            }
            previous = symbol;
        }
        result.cut = result.nodes.size() == max_depth && max_depth < frames_->frames();
        return result;
    }

    /// The symbol of frame t after the prefix `state` for a uniform number u.
    [[nodiscard]] std::int32_t symbol_of(std::int32_t state, std::size_t t, double u) const {
        const double blank = static_cast<double>(frames_->blank(t));
        u *= blank + static_cast<double>(frames_->emit(t));
        if (u < blank) return kBlank;
        u -= blank;
        const Scalar* factor = forward_.factors(state);
        const double scale = factor != nullptr ? static_cast<double>(forward_.scales(state)[t]) : 1.0;
        for (std::size_t c = 0; c < frames_->candidates(); ++c) {
            const double pi = static_cast<double>(frames_->pi(t, c));
            u -= factor != nullptr ? scale * pi * static_cast<double>(factor[c]) : pi;
            if (u < 0) return static_cast<std::int32_t>(c);
        }
        return kUnlisted;
    }

    /// The child of `at`, made and expanded if it is new; kNoNode if Scalar cannot hold its probability.
    template <typename Condition>
    NodeIndex descend(TokenTree::Builder& builder, NodeIndex at, std::int32_t candidate, Condition& condition) {
        const TokenId token = frames_->tokens()[static_cast<std::size_t>(candidate)];
        if (const NodeIndex there = builder.view().child(at, token); there != kNoNode) return there;
        const std::int32_t parent = state_[static_cast<std::size_t>(at)];
        const Scalar q = std::min(forward_.child(parent, candidate), Scalar(1));
        if (!(q >= std::numeric_limits<Scalar>::min()) || forward_.enter(parent, candidate) < 0) return kNoNode;
        state_.push_back(forward_.expand_entered(parent, candidate, condition));
        return builder.add(at, token, static_cast<float>(std::log(static_cast<double>(q))));
    }

    const Frames* frames_ = nullptr;
    BasicPrefixForward<Scalar> forward_;
    std::vector<std::int32_t> state_;  ///< [nodes] the expanded prefix of each node of the tree
};

using AlignmentSampler = BasicAlignmentSampler<float>;

}  // namespace outrider
