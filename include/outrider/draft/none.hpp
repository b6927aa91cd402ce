// The drafter that drafts nothing: plain decoding inside the same loop, the honest baseline.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include <outrider/draft/drafter.hpp>

namespace outrider {

/// The root alone for every sequence.
class NoDraft final : public DraftModel {
public:
    [[nodiscard]] std::string_view kind() const override { return "none"; }
    [[nodiscard]] DraftDraws draws() const override { return DraftDraws::no_nodes; }
    [[nodiscard]] FeatureRequest features() const override { return FeatureRequest::none(); }
    [[nodiscard]] bool cheap() const override { return true; }

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
        std::vector<SequenceTree> trees;
        trees.reserve(feedback.size());
        for (const SequenceFeedback& f : feedback) trees.push_back({f.sequence, TokenTree::root_only(f.pending)});
        return trees;
    }
};

}  // namespace outrider
