// One sequence's turn in a round: the policy's choice in its tree, and what is read beside it.
#pragma once

#include <cstdint>

#include <outrider/core/error.hpp>
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
    const TreeRows first{rows.logits.defined() ? rows.logits.slice(0, 0, 1) : rows.logits,
                         rows.argmax.defined() ? rows.argmax.slice(0, 0, 1) : rows.argmax};
    return choose(policy, session, TokenTree::root_only(draft.tree.token(0)), first, context, vocabulary, sound);
}

}  // namespace outrider
