// Drafts that are samples: alignments drawn frame by frame and collapsed. The law of a collapsed sample is the product
// of the exact conditionals q(c | l), so that such drafts can be verified without bias at any temperature.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
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

/// q(c | l) of collapsed alignments by the exact recursion, run anew along each path: O(T) a token of the path, and one
/// row of C candidates. Owns its frames and its condition, which must be the ones that the draft was drawn from and a
/// pure function of the prefix. A prefix of probability zero has q = 0 throughout.
template <typename Scalar, PrefixCondition<Scalar> Condition = Unconditioned>
class BasicCtcLaw final : public DraftLaw {
public:
    explicit BasicCtcLaw(BasicCtcFrames<Scalar> frames, Condition condition = {})
        : frames_(std::move(frames)), condition_(std::move(condition)) {}

    void conditional(std::span<const TokenId> path, std::span<double> q) const override {
        std::vector<TokenShare> shares;
        list(path, q.size(), shares);
        for (const TokenShare& share : shares) q[static_cast<std::size_t>(share.token)] = share.q;
    }

    void list(std::span<const TokenId> path, std::size_t vocabulary, std::vector<TokenShare>& shares) const override {
        BasicPrefixForward<Scalar> forward;
        forward.start(frames_);
        std::remove_cv_t<Condition> condition = condition_;
        std::int32_t state = forward.root(condition);
        const auto tokens = frames_.tokens();
        for (const TokenId token : path) {
            const auto at = std::find(tokens.begin(), tokens.end(), token);
            const auto candidate = static_cast<std::int32_t>(at - tokens.begin());
            if (at == tokens.end() || forward.enter(state, candidate) < 0) return;
            state = forward.expand_entered(state, candidate, condition);
        }
        for (const TokenId token : tokens)
            require(static_cast<std::size_t>(token) < vocabulary,
                    "CtcLaw: candidate {} is outside the target's vocabulary of {}", token, vocabulary);
        std::vector<Scalar> row(frames_.stride());
        forward.children(state, row.data());
        for (std::size_t c = 0; c < tokens.size(); ++c)
            if (row[c] > 0) shares.push_back({tokens[c], std::min(1.0, static_cast<double>(row[c]))});
    }

private:
    BasicCtcFrames<Scalar> frames_;
    Condition condition_;
};

using CtcLaw = BasicCtcLaw<float>;

/// The law of the sampler's last draw, at every node of its tree: for conditions that live no longer than the draw.
template <typename Scalar>
[[nodiscard]] std::shared_ptr<const ListedLaw> law_of(const BasicAlignmentSampler<Scalar>& sampler,
                                                      const SampledDraft& draft, const BasicCtcFrames<Scalar>& frames) {
    auto law = std::make_shared<ListedLaw>();
    std::vector<Scalar> row(frames.stride());
    for (NodeIndex node = 0; static_cast<std::size_t>(node) < draft.tree.size(); ++node) {
        sampler.conditional(node, row.data());
        std::vector<TokenId> path;
        for (const NodeIndex step : path_to(draft.tree, node)) path.push_back(draft.tree.token(step));
        std::vector<TokenShare> shares;
        for (std::size_t c = 0; c < frames.candidates(); ++c)
            if (row[c] > 0) shares.push_back({frames.tokens()[c], std::min(1.0, static_cast<double>(row[c]))});
        law->add(std::move(path), std::move(shares));
    }
    return law;
}

/// The draws behind a sampled tree. Nodes may be added to the tree, or dropped from it, afterwards.
[[nodiscard]] inline DraftSamples samples_of(const SampledDraft& draft, std::shared_ptr<const DraftLaw> law) {
    std::vector<DraftSamples::Chain> chains;
    for (const auto& chain : draft.chains) {
        chains.push_back({{}, chain.cut});
        for (const NodeIndex node : chain.nodes) chains.back().tokens.push_back(draft.tree.token(node));
    }
    return DraftSamples::from_chains(std::move(law), chains);
}

}  // namespace outrider
