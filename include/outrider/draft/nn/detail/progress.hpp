// Whether a feedback continues what a drafter knows: a stale state is an error, never a bad draft.
#pragma once

#include <outrider/core/error.hpp>
#include <outrider/target/round.hpp>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace outrider {

/// What a drafter that follows features knows of every sequence.
struct Progress {
    std::int64_t committed = 0;
    TokenId pending = kNoToken;  ///< of the last round; the next new token must be it
};

/// `known` is null on a sequence's first feedback. `width`: columns of features that the drafter reads. `vocabulary` is
/// the target's. Throws Error.
inline void check_progress(std::string_view drafter, const SequenceFeedback& feedback, const Progress* known,
                           std::int64_t width, std::int64_t vocabulary) {
    const auto count = static_cast<std::int64_t>(feedback.tokens.size());
    const std::int64_t before = known == nullptr ? 0 : known->committed;
    require(before + count == feedback.committed,
            "{}: sequence {} has {} committed tokens, this drafter saw {} and now gets {}; every round's feedback must "
            "reach the drafter, from the prompt on",
            drafter, feedback.sequence, feedback.committed, before, count);
    require(known == nullptr || (count > 0 && feedback.tokens.front() == known->pending),
            "{}: sequence {} continues with another token than the pending one of its last round; was `forget` left "
            "out?",
            drafter, feedback.sequence);
    require(count == 0 ||
                (feedback.features.defined() && feedback.features.dim() == 2 && feedback.features.size(0) == count),
            "{}: sequence {} brings {} tokens, expected as many rows of features", drafter, feedback.sequence, count);
    require(feedback.pending >= 0 && feedback.pending < vocabulary,
            "{}: pending token {} is outside the target's vocabulary of {}", drafter, feedback.pending, vocabulary);
    require(count == 0 || feedback.features.size(1) == width,
            "{}: features of width {}, expected {}; are they this target's, and does its verifier deliver what "
            "Prefill::features asks for?",
            drafter, count == 0 ? 0 : feedback.features.size(1), width);
}

/// The same for a whole round, before any state changes.
inline void check_progress(std::string_view drafter, std::span<const SequenceFeedback> feedback,
                           const std::unordered_map<SequenceId, Progress>& known, std::int64_t width,
                           std::int64_t vocabulary) {
    for (const SequenceFeedback& it : feedback) {
        const auto found = known.find(it.sequence);
        check_progress(drafter, it, found == known.end() ? nullptr : &found->second, width, vocabulary);
    }
}

/// Trees of some of a round's sequences, in the round's order; the others get their roots alone.
[[nodiscard]] inline std::vector<SequenceTree> with_roots(std::vector<SequenceTree> trees,
                                                          std::span<const SequenceFeedback> feedback) {
    if (trees.size() == feedback.size()) return trees;
    std::vector<SequenceTree> all;
    std::size_t next = 0;
    for (const SequenceFeedback& it : feedback)
        all.push_back(next < trees.size() && trees[next].sequence == it.sequence
                          ? std::move(trees[next++])
                          : SequenceTree{it.sequence, TokenTree::root_only(it.pending)});
    return all;
}

}  // namespace outrider
