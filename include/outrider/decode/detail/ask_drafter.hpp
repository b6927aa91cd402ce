// What a round asks of the drafter, and what is left of its trees.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <outrider/budget/detail/tree_budget.hpp>
#include <outrider/decode/detail/optional_members.hpp>
#include <outrider/decode/detail/round_checks.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/draft/detail/draft_checks.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Trees of the sequences that draft, the root alone for the others, all in the order of the active ones.
template <typename D>
[[nodiscard]] std::vector<SequenceTree> ask_drafter(Stage<D>& draft, SequenceBook& book, const budget::DraftPlan& plan,
                                                    std::int64_t vocabulary) {
    std::vector<SequenceTree> trees;
    for (const auto& session : book.active())
        trees.push_back({session->id(), TokenTree::root_only(session->pending())});
    if (plan.drafting.empty()) return trees;
    std::vector<SequenceTree> drafted = draft->propose(book.owed().take(plan.drafting), plan.budget);
    check_trees(drafted, book.active(), plan.drafting, plan.budget.nodes, vocabulary);
    for (std::size_t i = 0; i < drafted.size(); ++i) trees[plan.drafting[i]] = std::move(drafted[i]);
    return trees;
}

/// The drafter takes up what the target committed, and proposes nothing. `owed_tokens`: as DraftBudget's.
template <typename D>
void take_up(Stage<D>& draft, const Feedback& committed, std::int64_t owed_tokens) {
    if (committed.empty()) return;
    const auto roots = draft->propose(committed, DraftBudget{.nodes = 0, .owed_tokens = owed_tokens});
    check_drafts("Drafter", roots, committed, 0);
}

/// How many tokens a drafter takes up in a step: all, unless it works on them and others wait meanwhile.
template <typename D>
[[nodiscard]] std::int64_t taken_up(Stage<D>& draft, bool others, std::int64_t owed_tokens) {
    return others && !detail::is_cheap(draft.part()) ? owed_tokens : std::numeric_limits<std::int64_t>::max();
}

/// `take_up` for prompts on their way in of which the target told more than `owed_tokens`. Throws nothing: a fault here
/// ends those that enter.
template <typename D>
void take_up_prompts(Stage<D>& draft, SequenceBook& book, std::int64_t owed_tokens) {
    try {
        const bool others = book.active().size() + book.waiting() > 1;
        const Feedback told = book.prompts().beyond(owed_tokens, taken_up(draft, others, owed_tokens));
        draft.lap();
        take_up(draft, told, owed_tokens);
        const double share = draft.lap() / double(std::max<std::size_t>(told.size(), 1));
        for (const SequenceFeedback& one : told) book.prompts().find(one.sequence)->stats().seconds.draft += share;
    } catch (...) {
        book.fail_intake();
    }
}

/// The trees of all active ones without nodes that the texts could not use: Session::usable.
[[nodiscard]] inline std::vector<SequenceTree> without_useless(std::vector<SequenceTree> trees, SequenceBook& book) {
    for (std::size_t i = 0; i < trees.size(); ++i)
        trees[i].tree = book.active()[i]->usable(std::move(trees[i].tree), trees[i].samples != nullptr);
    return trees;
}

/// The same with what constraints expect (Session::expect), where nothing was drawn.
[[nodiscard]] inline std::vector<SequenceTree> with_expected(std::vector<SequenceTree> trees, SequenceBook& book) {
    for (std::size_t i = 0; i < trees.size(); ++i)
        if (trees[i].samples == nullptr) trees[i].tree = book.active()[i]->expect(std::move(trees[i].tree));
    return trees;
}

/// The same with what is read of the target's answer: SequenceTree::logits and ::picks.
template <typename A>
[[nodiscard]] std::vector<SequenceTree> told_what_is_read(std::vector<SequenceTree> trees, SequenceBook& book,
                                                          const A& policy) {
    for (std::size_t i = 0; i < trees.size(); ++i) {
        const Session& session = *book.active()[i];
        const SamplingOptions& sampling = *session.context().sampling;
        trees[i].logits = session.reads_logprobs() || detail::reads_logits(policy, sampling);
        trees[i].picks = detail::takes_picks(policy, sampling) ? &sampling : nullptr;
    }
    return trees;
}

}  // namespace outrider
