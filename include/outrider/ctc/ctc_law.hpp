// The law of drafts sampled from CTC frames, and their chains, in the form that acceptance rules take.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>
#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_forward.hpp>
#include <outrider/tree/tree_layout.hpp>

namespace outrider {

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
