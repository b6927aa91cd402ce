// The drafter's side of the loop.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Proposes trees. Protocol: `propose` is called at most once a round with the feedback of every sequence that drafts,
/// in any order, and returns one tree for each, in that order. A round may leave sequences out; what they commit
/// meanwhile comes with their next feedback. A sequence's first feedback begins with its prompt; the drafter makes its
/// state then, and drops it in `forget`. A drafter whose state does not fit the feedback (a gap between what
/// it saw and feedback.committed) throws Error: a stale state is never quietly a bad draft.
/// A host's own drafter need not derive from this class: any type with a matching `propose` satisfies Drafter.
class OUTRIDER_API DraftModel {
public:
    virtual ~DraftModel() = default;

    /// One tree per feedback, whose root is feedback.pending and which has at most budget.nodes nodes below it.
    /// Throws Error where a derived class breaks that.
    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) {
        std::vector<SequenceTree> trees = do_propose(feedback, budget);
        check(feedback, budget, trees);
        return trees;
    }

    /// Drops the state of a sequence that has ended. Unknown ids are ignored.
    void forget(SequenceId sequence) { do_forget(sequence); }

    /// Short name for reports: "none", "ngram", "ctc", "ctc+ngram", ...
    [[nodiscard]] virtual std::string_view kind() const = 0;

    /// What its trees bring for policies that need draws. A decoder asks once, before the first round.
    [[nodiscard]] virtual DraftDraws draws() const { return DraftDraws::unknown; }

    /// What it reads of the target's inner states; the same as long as it lives. A decoder asks for it with each
    /// prompt.
    [[nodiscard]] virtual FeatureRequest features() const { return {}; }

    /// Whether a draft costs next to nothing beside a target pass: look-ups, no network. Where time has a price, a
    /// merged drafter begins with such parts.
    [[nodiscard]] virtual bool cheap() const { return false; }

    /// Bytes of weights and of the tables made of them, as held; not what it keeps for each sequence. 0 for look-ups.
    [[nodiscard]] virtual std::size_t weight_bytes() const { return 0; }

protected:
    [[nodiscard]] virtual std::vector<SequenceTree> do_propose(std::span<const SequenceFeedback> feedback,
                                                               DraftBudget budget) = 0;
    virtual void do_forget(SequenceId) {}

private:
    static void check(std::span<const SequenceFeedback> feedback, DraftBudget budget,
                      const std::vector<SequenceTree>& trees) {
        require(trees.size() == feedback.size(), "DraftModel: {} trees for {} sequences; return one for each",
                trees.size(), feedback.size());
        for (std::size_t i = 0; i < trees.size(); ++i) {
            const TokenTree& tree = trees[i].tree;
            require(trees[i].sequence == feedback[i].sequence && tree.token(0) == feedback[i].pending,
                    "DraftModel: tree {} belongs to sequence {} and has root {}, expected sequence {} and its pending "
                    "token {}",
                    i, trees[i].sequence, tree.token(0), feedback[i].sequence, feedback[i].pending);
            require(static_cast<std::int64_t>(tree.drafted()) <= budget.nodes,
                    "DraftModel: tree {} has {} nodes below the root, the budget is {}", i, tree.drafted(),
                    budget.nodes);
        }
    }
};

}  // namespace outrider
