// Drafts drawn from heads: independent chains, and the law that they were drawn from.
#pragma once

#include <cstdint>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/draft/nn/detail/head_options.hpp>
#include <outrider/target/round.hpp>
#include <span>
#include <vector>

#include <outrider/draft/nn/detail/path_search.hpp>
#include <outrider/draft/nn/detail/score_rows.hpp>

namespace outrider {

/// Chains drawn from heads. Reusable scratch; not thread-safe.
class PathSampler {
public:
    /// A sequence that drafts. Its draws are a function of the seed and these.
    struct Start {
        SequenceId sequence = 0;
        std::int64_t committed = 0;
        TokenId pending = kNoToken;
    };

    /// options.chains independent chains for each sequence, as deep as the budget and `heads` allow, each step from the
    /// options.top_k likeliest tokens of the head that has seen the chain so far, renormalised: q is exactly that. A
    /// row that holds NaN or infinities ends the chains that stand there, with probability 1.
    [[nodiscard]] std::vector<SequenceTree> draw(std::span<const Start> starts, std::span<const TokenId> vocabulary,
                                                 std::int64_t heads, const DraftBudget& budget,
                                                 const HeadDraftOptions& options, const PathSearch::Score& score);

private:
    struct Growing;

    void level(std::span<const Start> starts, std::vector<Growing>& growing, std::span<const TokenId> vocabulary,
               std::int64_t heads, const HeadDraftOptions& options, const PathSearch::Score& score);
    [[nodiscard]] std::vector<TokenShare> shares_of(float* row, std::span<const TokenId> vocabulary,
                                                    std::int64_t top_k);

    std::vector<float> scores_;
    RankedTokens ranked_;
};

/// The sequences of a round that draft: those with a committed token, whose feature heads draft from.
[[nodiscard]] inline std::vector<PathSampler::Start> starts_of(std::span<const SequenceFeedback> feedback) {
    std::vector<PathSampler::Start> starts;
    for (const SequenceFeedback& it : feedback)
        if (!it.tokens.empty()) starts.push_back({it.sequence, it.committed, it.pending});
    return starts;
}

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/path_sampling-inl.hpp>
#endif
