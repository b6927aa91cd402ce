// Drafter, verifier and policy with the trap device's stages around their calls.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/accept/policy.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/target/verifier.hpp>

#include "trap_device.hpp"

namespace outrider::test {

/// Draws are keyed by a sequence's id, and ids never come twice: the drafter is told 1, 2, ... in order of appearance,
/// so that two decodes can be compared.
struct CountedDraft {
    std::unique_ptr<DraftModel> inner;
    bool chains = false;  ///< asks for them, whatever the target takes
    std::map<SequenceId, SequenceId> names = {};
    std::vector<TokenTree> drafted = {};  ///< all trees, in order

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) {
        const trap::Stage stage("propose");
        std::vector<SequenceFeedback> named(feedback.begin(), feedback.end());
        for (SequenceFeedback& it : named)
            it.sequence = names.emplace(it.sequence, static_cast<SequenceId>(names.size()) + 1).first->second;
        budget.chains = budget.chains || chains;
        std::vector<SequenceTree> trees = inner->propose(named, budget);
        for (std::size_t i = 0; i < trees.size(); ++i) trees[i].sequence = feedback[i].sequence;
        for (const SequenceTree& tree : trees) drafted.push_back(tree.tree);
        return trees;
    }
    void forget(SequenceId id) {
        if (const auto found = names.find(id); found != names.end()) inner->forget(found->second);
    }
    [[nodiscard]] std::string_view kind() const { return inner->kind(); }
    [[nodiscard]] DraftDraws draws() const { return inner->draws(); }
    [[nodiscard]] FeatureRequest features() const { return inner->features(); }
};

struct CountedVerifier {
    std::unique_ptr<Verifier> inner;
    std::int64_t rounds = 0;

    Feedback prefill(std::span<const Prefill> sequences) {
        const trap::Stage stage("prefill");
        return inner->prefill(sequences);
    }
    TreeOutput verify(std::span<const SequenceTree> trees) {
        const trap::Stage stage("verify");
        ++rounds;
        return inner->verify(trees);
    }
    Feedback commit(std::span<const SequenceAcceptance> accepted) {
        const trap::Stage stage("commit");
        return inner->commit(accepted);
    }
    void release(SequenceId id) { inner->release(id); }
    [[nodiscard]] std::int64_t vocabulary() const { return inner->vocabulary(); }
    [[nodiscard]] std::int64_t context() const { return inner->context(); }
};

struct CountedPolicy {
    std::unique_ptr<AcceptancePolicy> inner;

    [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows, const SequenceContext& context) const {
        const trap::Stage stage("accept");
        return inner->accept(tree, rows, context);
    }
    [[nodiscard]] bool reads_logits(const SamplingOptions& sampling) const { return inner->reads_logits(sampling); }
    [[nodiscard]] bool takes_picks(const SamplingOptions& sampling) const { return inner->takes_picks(sampling); }
    void check_draws(DraftDraws draws) const { inner->check_draws(draws); }
};

}  // namespace outrider::test
