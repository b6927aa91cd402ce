// Several drafters as one: their trees joined by token path, the node budget spent where acceptance is likeliest.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/budget/detail/part.hpp>
#include <outrider/budget/detail/self_priced.hpp>
#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/detail/draft_trie.hpp>
#include <outrider/draft/detail/owed_sequence.hpp>
#include <outrider/draft/detail/tree_extender.hpp>
#include <outrider/draft/drafter.hpp>

namespace outrider {

/// Every drafter proposes up to the whole budget; the trees become one trie (DraftTrie: the merged trees of SpecInfer,
/// Miao et al. 2024), of which the nodes of largest path probability stay. Probabilities are corrected by how often
/// such nodes came true. What is learned is shared by all sequences and a function of the history alone.
///
/// A drafter that can go on where others end (TreeExtender: n-grams) then gets the whole trie, continues its likeliest
/// paths and has a say on nodes that only others had proposed. Not where a drafter samples: that would make nodes
/// depend on draws.
///
/// Where the budget names prices (kAutoNodes does), the cheapest drafter drafts first, and each is asked only where
/// what it usually adds to promises like these is worth its time (budget::Part); it catches up when it is asked again.
/// Each has an account of its own of what finding out may lose. Such trees depend on what time the drafters take.
/// Without prices, and where a drafter samples, every drafter is asked every round.
///
/// Where the target takes chains alone, every drafter proposes one, and the path stays along which most tokens are
/// expected.
///
/// Of the drafters that sample, the first one's draws are the merged tree's (SequenceTree::samples), and all other
/// nodes stand beside them, but where there is room for one chain; where none samples, but one is certain of a path,
/// the merged tree's likeliest path.
class OUTRIDER_API MergedDraft final : public DraftModel, public SelfPriced {
public:
    /// At least one drafter, at most 16, none null. The clock tells what drafts cost where time has a price.
    explicit MergedDraft(std::vector<std::unique_ptr<DraftModel>> drafters, Clock clock = now_seconds);

    /// MergedDraft{CtcDraft::load(...), NgramDraft{}}
    template <typename... Parts>
        requires(sizeof...(Parts) >= 2 && (std::derived_from<std::remove_cvref_t<Parts>, DraftModel> && ...))
    explicit MergedDraft(Parts&&... parts) : MergedDraft(list(std::forward<Parts>(parts)...)) {}

    /// The kinds joined, "ctc+ngram".
    [[nodiscard]] std::string_view kind() const override { return kind_; }
    [[nodiscard]] DraftDraws draws() const override;
    /// Of all parts; each gets what it asked for itself.
    [[nodiscard]] FeatureRequest features() const override { return features_; }
    [[nodiscard]] std::size_t weight_bytes() const override;
    /// Part by part, but where a part samples.
    [[nodiscard]] bool rests() const override { return !draws_nodes_; }

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override;
    void forget(SequenceId sequence) override;

private:
    using Drafters = DraftTrie::Drafters;
    using Stages =
        std::vector<DraftTrie>;  ///< without prices the whole trie alone, else after each drafter that was asked

    template <typename... Parts>
    static std::vector<std::unique_ptr<DraftModel>> list(Parts&&... parts) {
        std::vector<std::unique_ptr<DraftModel>> all;
        (all.push_back(std::make_unique<std::remove_cvref_t<Parts>>(std::forward<Parts>(parts))), ...);
        return all;
    }

    using Draws = std::unordered_map<SequenceId, std::shared_ptr<const DraftSamples>>;
    static void keep_draws(const SequenceTree& tree, Draws& draws);
    [[nodiscard]] bool drawn_alone(const DraftBudget& budget) const;
    void extend(SequenceId sequence, DraftTrie& trie, const DraftBudget& budget);

    [[nodiscard]] std::vector<SequenceTree> take_up(std::span<const SequenceFeedback> feedback,
                                                    const DraftBudget& budget);
    void cheapest_first();
    [[nodiscard]] std::vector<std::size_t> whom_to_draft(std::size_t drafter,
                                                         std::span<const SequenceFeedback> feedback,
                                                         const DraftBudget& budget);
    void ask(std::size_t drafter, std::span<const SequenceFeedback> feedback, const DraftBudget& budget, bool priced,
             Draws& draws);
    void ask_certain(std::span<const SequenceFeedback> feedback, const DraftBudget& budget, Draws& draws);
    void draft(std::size_t drafter, std::span<const SequenceFeedback> feedback, const DraftBudget& budget, bool priced,
               Draws& draws);
    [[nodiscard]] Feedback owed(std::size_t drafter, std::span<const SequenceFeedback> feedback,
                                const std::vector<std::size_t>& asked);

    /// One of the drafters, and what is known of it.
    struct Part {
        std::unique_ptr<DraftModel> drafter;
        TreeExtender* extender = nullptr;                        ///< the drafter, where it is one
        budget::Part asking = {};                                ///< beside those before it in order_
        std::unordered_map<SequenceId, OwedSequence> owed = {};  ///< of sequences for which it rests

        /// Tokens of a sequence that it has not seen, those of this feedback included.
        [[nodiscard]] std::int64_t unseen(const SequenceFeedback& now) const {
            const auto late = owed.find(now.sequence);
            return std::ssize(now.tokens) + (late == owed.end() ? 0 : late->second.tokens());
        }
        /// Whether the features of so many are too many to keep.
        [[nodiscard]] bool has_waiting(std::int64_t tokens, const DraftBudget& budget) const {
            return drafter->features().wanted && tokens > budget.owed_tokens;
        }
    };

    std::vector<Part> parts_;
    FeatureRequest features_;
    bool draws_nodes_ = false;        ///< a drafter samples, or may
    std::vector<std::size_t> order_;  ///< cheapest first, roughly
    Clock clock_;
    std::string kind_;
    DraftTrie::Rates hit_rates_;
    std::unordered_map<SequenceId, Stages> proposed_;  ///< in the last round, all nodes
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/detail/merged-inl.hpp>
#endif
