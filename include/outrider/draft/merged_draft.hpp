// Several drafters as one: their trees joined by token path, the node budget spent where acceptance is likeliest.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/draft/calibration.hpp>
#include <outrider/interface/draft_model.hpp>

namespace outrider {

/// Every drafter gets every feedback and proposes up to the whole budget; the trees become one trie (the merged trees
/// of SpecInfer, Miao et al. 2024), of which the nodes of largest path probability stay. A node's probability given its
/// parent starts as 1 - prod(1 - q) over the drafters that propose it, and is corrected by how often such nodes came
/// true: one Calibration for each set of drafters that agree, since a token that two propose is another kind of guess
/// than a token that one proposes while the other differs. Siblings that sum to more than one are scaled down. What is
/// learned is shared by all sequences and a function of the history alone.
/// Of the drafters that sample, the first one's draws are the merged tree's (SequenceTree::samples), and all other nodes
/// stand beside them; where none samples, but one is certain of a path, the merged tree's likeliest path.
class MergedDraft final : public DraftModel {
public:
    /// At least one drafter, at most 16, none null.
    explicit MergedDraft(std::vector<std::unique_ptr<DraftModel>> drafters);

    /// MergedDraft{CtcDraft::load(...), NgramDraft{}}
    template <typename... Drafters>
        requires(sizeof...(Drafters) >= 2 && (std::derived_from<std::remove_cvref_t<Drafters>, DraftModel> && ...))
    explicit MergedDraft(Drafters&&... drafters) : MergedDraft(list(std::forward<Drafters>(drafters)...)) {}

    /// The kinds joined, "ctc+ngram".
    [[nodiscard]] std::string_view kind() const override { return kind_; }
    [[nodiscard]] DraftDraws draws() const override;

protected:
    [[nodiscard]] std::vector<SequenceTree> do_propose(std::span<const SequenceFeedback> feedback,
                                                       DraftBudget budget) override;
    void do_forget(SequenceId sequence) override;

private:
    using Agreement = std::uint16_t;  ///< bit d: drafter d proposes the node

    struct Node {
        TokenId token = kNoToken;
        NodeIndex parent = kNoNode;
        std::int32_t depth = 0;
        Agreement by = 0;
        double miss = 1.0;  ///< prod(1 - q) of those that propose it
        double path = 0.0;  ///< log of the calibrated path probability
        double given_parent = 1.0;
    };
    using Trie = std::vector<Node>;  ///< node 0 is the root; parents come first

    template <typename... Drafters>
    static std::vector<std::unique_ptr<DraftModel>> list(Drafters&&... drafters) {
        std::vector<std::unique_ptr<DraftModel>> all;
        (all.push_back(std::make_unique<std::remove_cvref_t<Drafters>>(std::forward<Drafters>(drafters))), ...);
        return all;
    }

    using Draws = std::unordered_map<SequenceId, std::shared_ptr<const DraftSamples>>;
    static void keep_draws(const SequenceTree& tree, Draws& draws);
    void learn(const Trie& proposed, const SequenceFeedback& feedback);
    static void join(Trie& trie, const TokenTree& tree, Agreement who);
    void weigh(Trie& trie) const;
    static TokenTree best_nodes(const Trie& trie, std::int64_t nodes);

    std::vector<std::unique_ptr<DraftModel>> drafters_;
    std::string kind_;
    std::map<Agreement, Calibration> calibrations_;
    std::unordered_map<SequenceId, Trie> proposed_;  ///< the last trie of each sequence, all of it
};

}  // namespace outrider
