// Medusa drafting (Cai et al. 2024, arXiv 2401.10774): every head looks at the newest feature alone, and the draft is a
// tree of their likeliest tokens.
#pragma once

#include <concepts>
#include <filesystem>
#include <memory>
#include <outrider/draft/head_options.hpp>
#include <outrider/draft/medusa_config.hpp>
#include <outrider/draft/medusa_network.hpp>
#include <outrider/interface/draft_model.hpp>
#include <outrider/interface/target_head.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace outrider {

/// Trained Medusa heads. A path's probability is the product of its tokens' probabilities, head by head. Movable; calls
/// on one object take turns.
class MedusaDraft final : public DraftModel {
public:
    /// `folder`: config.json and model.safetensors, as `outrider train` writes them, or a published checkpoint
    /// (keys as its authors wrote them). Throws Error for damaged files and for another target.
    [[nodiscard]] static MedusaDraft load(const std::filesystem::path& folder, const TargetHead& head,
                                          const HeadDraftOptions& options = {});

    /// The same, for anything that has a head(): a LlamaModel.
    template <typename Model>
    requires requires(const Model& model) {
        { model.head() } -> std::convertible_to<TargetHead>;
    }
    [[nodiscard]] static MedusaDraft load(const std::filesystem::path& folder, const Model& model,
                                          const HeadDraftOptions& options = {}) {
        return load(folder, TargetHead(model.head()), options);
    }

    /// From weights in memory, on their device. An empty target fingerprint fits every target of these sizes.
    MedusaDraft(MedusaConfig config, const MedusaWeights& weights, const TargetHead& head,
                const HeadDraftOptions& options = {});
    ~MedusaDraft() override;
    MedusaDraft(MedusaDraft&&) noexcept;
    MedusaDraft& operator=(MedusaDraft&&) noexcept;

    [[nodiscard]] std::string_view kind() const override { return "medusa"; }
    [[nodiscard]] DraftDraws draws() const override;
    [[nodiscard]] const MedusaConfig& config() const;

protected:
    [[nodiscard]] std::vector<SequenceTree> do_propose(std::span<const SequenceFeedback> feedback,
                                                       DraftBudget budget) override;
    void do_forget(SequenceId sequence) override;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace outrider
