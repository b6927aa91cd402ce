// One sequence's turn in a round: the policy's choice in its tree, and what is read beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/session.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// What the policy chose in one tree, remembered by the session with its log-probabilities. `sound`: false when the
/// policy's answer is no path of the tree, which throws Error.
template <typename A>
[[nodiscard]] Acceptance choose(Stage<A>& policy, Session& session, const TokenTree& tree, const TreeRows& rows,
                                const SequenceContext& context, std::int64_t vocabulary, bool& sound) {
    Acceptance chosen = policy->accept(tree, rows, context);
    sound = false;
    session.accept(tree, chosen, vocabulary);
    sound = true;
    session.read_logprobs(tree, rows, chosen);
    return chosen;
}

/// Where a hook of the request fails somewhere below the root, or the target's logits are broken there, the draft has
/// led there: the root alone is decided, so that the text before the failure is the same as without drafts. What the
/// policy has against the draft itself is not covered up.
template <typename A>
[[nodiscard]] Acceptance decide(Stage<A>& policy, Session& session, const SequenceTree& draft, const TreeRows& rows,
                                std::int64_t vocabulary) {
    SequenceContext context = session.context();
    context.samples = draft.samples.get();
    bool sound = true;
    try {
        return choose(policy, session, draft.tree, rows, context, vocabulary, sound);
    } catch (const Error& error) {
        const bool of_the_draft = error.kind() == ErrorKind::bad_request && !context.sampling->logit_hook;
        if (draft.tree.drafted() == 0 || of_the_draft || !sound) throw;
    } catch (...) {
        if (draft.tree.drafted() == 0) throw;
    }
    context.samples = nullptr;
    return choose(policy, session, TokenTree::root_only(draft.tree.token(0)), rows.slice(0, 1), context, vocabulary,
                  sound);
}

/// Asks the policy tree by tree; `saw(tree, acceptance)` is told of each. A sequence for which it throws, and one that
/// the target refuses, ends. What is left stands in the order of the active ones that have not ended.
template <typename A, typename Saw>
[[nodiscard]] std::vector<SequenceAcceptance> decide_each(Stage<A>& policy, SequenceBook& book,
                                                          const std::vector<SequenceTree>& trees,
                                                          const TreeOutput& output, std::int64_t vocabulary,
                                                          Saw&& saw) {
    std::vector<Acceptance> chosen(trees.size());
    for (std::size_t i = 0; i < trees.size(); ++i) {
        Session& session = *book.active()[i];
        if (book.refuse(session, output.refusal(i))) continue;
        try {
            chosen[i] = decide(policy, session, trees[i], rows_of(output, i), vocabulary);
            saw(trees[i], chosen[i]);
        } catch (...) {
            book.fail(session);
        }
    }
    std::vector<SequenceAcceptance> accepted;
    for (std::size_t i = 0; i < trees.size(); ++i)
        if (const Session& session = *book.active()[i]; !session.ended())
            accepted.push_back({trees[i].sequence, std::move(chosen[i]), session.committed()});
    return accepted;
}

}  // namespace outrider
