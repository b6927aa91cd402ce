// What a round asks of the drafter, and what is left of its trees.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/budget/detail/tree_budget.hpp>
#include <outrider/decode/detail/optional_members.hpp>
#include <outrider/decode/detail/round_checks.hpp>
#include <outrider/decode/detail/sequence_book.hpp>
#include <outrider/decode/detail/stage.hpp>
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

/// Sequences (indices) that have not drafted for long: the drafter takes up what the target committed, and proposes
/// nothing.
template <typename D>
void bring_up_to_date(Stage<D>& draft, SequenceBook& book, std::span<const std::size_t> late, std::int64_t vocabulary) {
    const std::vector<SequenceTree> roots = draft->propose(book.owed().take(late), DraftBudget{.nodes = 0});
    check_trees(roots, book.active(), late, 0, vocabulary);
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

/// The same with what is read of the target's answer: SequenceTree::logits.
template <typename A>
[[nodiscard]] std::vector<SequenceTree> told_what_is_read(std::vector<SequenceTree> trees, SequenceBook& book,
                                                          const A& policy) {
    for (std::size_t i = 0; i < trees.size(); ++i) {
        const Session& session = *book.active()[i];
        trees[i].logits = session.reads_logprobs() || detail::reads_logits(policy, *session.context().sampling);
    }
    return trees;
}

}  // namespace outrider
