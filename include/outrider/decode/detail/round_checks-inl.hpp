// Bodies of round_checks.hpp.
#pragma once

#include <outrider/decode/detail/round_checks.hpp>

#include <algorithm>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/draft/detail/draft_checks.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE void check_trees(const std::vector<SequenceTree>& trees,
                                 const std::vector<std::unique_ptr<Session>>& sessions,
                                 std::span<const std::size_t> drafting, std::int64_t nodes, std::int64_t vocabulary) {
    check_draft_count("Drafter", trees.size(), drafting.size());
    for (std::size_t i = 0; i < trees.size(); ++i) {
        const Session& session = *sessions[drafting[i]];
        check_draft("Drafter", i, trees[i], session.id(), session.pending(), nodes);
        for (const TokenId token : trees[i].tree.tokens())
            require(token < vocabulary, "Drafter: tree {} holds token {}, outside the target's vocabulary of {}", i,
                    token, vocabulary);
    }
}

OUTRIDER_INLINE void check_output(const TreeOutput& output, const std::vector<SequenceTree>& trees,
                                  std::int64_t vocabulary) {
    require(output.offsets.size() == trees.size() + 1 && output.offsets.front() == 0,
            "Verifier: {} row offsets for {} trees, expected one more than trees, the first 0", output.offsets.size(),
            trees.size());
    require(output.refused.empty() || output.refused.size() == trees.size(),
            "Verifier: refusals of {} trees, expected {} or none", output.refused.size(), trees.size());
    for (std::size_t i = 0; i < trees.size(); ++i) {
        const std::int64_t given = output.offsets[i + 1] - output.offsets[i];
        const auto nodes = output.refusal(i) ? std::int64_t{0} : static_cast<std::int64_t>(trees[i].tree.size());
        require(given == nodes, "Verifier: {} rows for tree {}, expected {}", given, i, nodes);
    }
    const std::int64_t rows = output.offsets.back();
    if (rows == 0) return;  // all are refused
    const bool enough = output.argmax.defined() && std::ranges::none_of(trees, &SequenceTree::logits);
    require(output.logits.defined()
                ? output.logits.dim() == 2 && output.logits.size(0) >= rows && output.logits.size(1) == vocabulary
                : enough,
            "Verifier: the logits must be [{}, {}], a row for each node, as wide as the vocabulary", rows, vocabulary);
    for (const auto& [tokens, name] : {std::pair{output.argmax, "argmax"}, std::pair{output.picks, "picks"}})
        require(!tokens.defined() || (tokens.dim() == 1 && tokens.size(0) >= rows),
                "Verifier: {} must be [{}], a token for each node", name, rows);
}

OUTRIDER_INLINE void check_feedback(const Feedback& feedback, const std::vector<std::unique_ptr<Session>>& sessions) {
    require(feedback.size() == sessions.size(), "Verifier: feedback of {} sequences, expected {}", feedback.size(),
            sessions.size());
    for (std::size_t i = 0; i < feedback.size(); ++i)
        require(feedback[i].sequence == sessions[i]->id(), "Verifier: feedback {} is of sequence {}, expected {}", i,
                feedback[i].sequence, sessions[i]->id());
}

}  // namespace outrider
