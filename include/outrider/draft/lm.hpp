// A smaller language model with the target's tokenizer as drafter (Leviathan et al. 2022, Chen et al. 2023).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/detail/top_k.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/target/causal_model.hpp>
#include <outrider/target/target_head.hpp>

namespace outrider {

enum class LmTree : unsigned char {
    chain,       ///< its greedy text
    best_first,  ///< the most probable continuations; each level is one forward over the nodes that may still matter
    sampled,     ///< chains drawn token by token, with their law (SequenceTree::samples)
};

struct LmDraftOptions {
    LmTree tree = LmTree::best_first;
    std::int64_t max_depth = 5;  ///< forwards of a round
    std::int64_t width = 4;      ///< nodes of a level that best_first continues, at most
    std::int64_t top_k = 32;     ///< what a node is continued with: q is renormalised over so many tokens
    std::int64_t chains = 1;     ///< of `sampled`, independent of each other
    double temperature = 1.0;    ///< q's; 0: all on its most probable token
    std::uint64_t seed = 0;      ///< of `sampled`; draws are keyed by (seed, sequence, committed)
};

/// Keeps the model's KV cache in step with the text: what a round drafted is kept where it was accepted, and the rest
/// taken back. Sequences of a batch share each forward. A text that outgrows the model's context is drafted no further.
class OUTRIDER_API LmDraft final : public DraftModel {
public:
    /// Throws Error unless model and target have the same tokenizer (TargetHead::tokenizer). Of the target no more than
    /// that and the size of its vocabulary is looked at.
    LmDraft(std::unique_ptr<CausalModel> model, const TargetHead& target, const LmDraftOptions& options = {});

    [[nodiscard]] std::string_view kind() const override { return "lm"; }
    [[nodiscard]] DraftDraws draws() const override;
    [[nodiscard]] FeatureRequest features() const override { return FeatureRequest::none(); }
    [[nodiscard]] std::size_t weight_bytes() const override { return model_->weight_bytes(); }
    [[nodiscard]] const CausalModel& model() const { return *model_; }

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override;
    void forget(SequenceId sequence) override;

private:
    /// What is known between rounds.
    struct Known {
        std::vector<TokenId> text;  ///< committed tokens and the pending one
        std::vector<TokenId> held;  ///< what the model's cache holds
    };
    struct Growing;

    void take_up(const SequenceFeedback& feedback);
    void catch_up(std::vector<Growing>& growing);
    void forward(std::vector<Growing>& growing);
    void keep_rows(Growing& one);
    void expand(Growing& one, const float* logits);
    void choose(Growing& one, NodeIndex node, std::span<const TokenId> tokens, std::span<const double> q);
    void sample(Growing& one, NodeIndex node, std::span<const TokenId> tokens, std::span<const double> q);
    void next_level(Growing& one) const;
    [[nodiscard]] SequenceTree finish(Growing& one, bool draws) const;

    std::unique_ptr<CausalModel> model_;
    LmDraftOptions options_;
    std::size_t vocabulary_;  ///< tokens that both know
    std::unordered_map<SequenceId, Known> known_;
    TopK top_k_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/detail/lm-inl.hpp>
#endif
