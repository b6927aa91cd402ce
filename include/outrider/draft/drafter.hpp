// The drafter's side of the loop.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Proposes trees. Protocol: `propose` is called at most once a round with the feedback of every sequence that drafts,
/// in any order, and returns one tree for each, in that order. A round may leave sequences out; what they commit
/// meanwhile comes with their next feedback. Where that is much, as while a long prompt enters, they are handed in with
/// a budget of 0 nodes, apart from those that draft (DecoderOptions::owed_tokens). A sequence's first feedback begins
/// with its prompt; the drafter makes its state then, and drops it in `forget`. A drafter whose state does not fit the
/// feedback (a gap between what it saw and feedback.committed) throws Error: a stale state is never quietly a bad
/// draft. A host's own drafter need not derive from this class: any type with a matching `propose` satisfies Drafter.
class OUTRIDER_API DraftModel {
public:
    virtual ~DraftModel() = default;

    /// One tree per feedback, in order, whose root is feedback.pending and which has at most budget.nodes nodes below
    /// it. Whoever calls it (the decoder, a merged drafter) checks that.
    [[nodiscard]] virtual std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                            DraftBudget budget) = 0;

    /// Drops the state of a sequence that has ended. Unknown ids are ignored.
    virtual void forget(SequenceId) {}

    /// Short name for reports: "none", "ngram", "ctc", "ctc+ngram", ...
    [[nodiscard]] virtual std::string_view kind() const = 0;

    /// What its trees bring for policies that need draws. A decoder asks when it is made.
    [[nodiscard]] virtual DraftDraws draws() const { return DraftDraws::unknown; }

    /// What it reads of the target's inner states; the same as long as it lives. A decoder asks for it with each
    /// prompt.
    [[nodiscard]] virtual FeatureRequest features() const { return {}; }

    /// Whether a draft costs next to nothing beside a target pass: look-ups, no network. Where time has a price, a
    /// merged drafter begins with such parts.
    [[nodiscard]] virtual bool cheap() const { return false; }

    /// Bytes of weights and of the tables made of them, as held; not what it keeps for each sequence. 0 for look-ups.
    [[nodiscard]] virtual std::size_t weight_bytes() const { return 0; }
};

/// One function from feedback to trees. `forget(SequenceId)`, `features()`, `draws()` and `kind()` are called too where
/// they exist.
template <typename D>
concept Drafter = requires(D draft, std::span<const SequenceFeedback> feedback, DraftBudget budget) {
    { draft.propose(feedback, budget) } -> std::same_as<std::vector<SequenceTree>>;
};

static_assert(Drafter<DraftModel>);

}  // namespace outrider
