// Hydra and Hydra++ drafting (Ankner et al. 2024, arXiv 2402.05109): heads that see the drafted path, and for Hydra++ a
// decoder layer over all committed features.
#pragma once

#include <concepts>
#include <filesystem>
#include <memory>
#include <outrider/draft/head_options.hpp>
#include <outrider/draft/hydra_config.hpp>
#include <outrider/draft/hydra_network.hpp>
#include <outrider/interface/draft_model.hpp>
#include <outrider/interface/target_head.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace outrider {

/// Trained Hydra heads. A path's probability is the product of its tokens' probabilities, each given the path before
/// it; best_first finds the N largest exactly, in a few passes of the heads over the nodes that can still have children
/// in the tree, all sequences together. Movable; calls on one object take turns.
class HydraDraft final : public DraftModel {
public:
    /// `folder`: config.json and model.safetensors, as `outrider train` writes them, or a published checkpoint
    /// (keys as its authors wrote them). Throws Error for damaged files and for another target.
    [[nodiscard]] static HydraDraft load(const std::filesystem::path& folder, const TargetHead& head,
                                         const HeadDraftOptions& options = {});

    /// The same, for anything that has a head(): a LlamaModel.
    template <typename Model>
    requires requires(const Model& model) {
        { model.head() } -> std::convertible_to<TargetHead>;
    }
    [[nodiscard]] static HydraDraft load(const std::filesystem::path& folder, const Model& model,
                                         const HeadDraftOptions& options = {}) {
        return load(folder, TargetHead(model.head()), options);
    }

    /// From weights in memory, on their device. An empty target fingerprint fits every target of these sizes.
    HydraDraft(HydraConfig config, const HydraWeights& weights, const TargetHead& head,
               const HeadDraftOptions& options = {});
    ~HydraDraft() override;
    HydraDraft(HydraDraft&&) noexcept;
    HydraDraft& operator=(HydraDraft&&) noexcept;

    [[nodiscard]] std::string_view kind() const override { return "hydra"; }
    [[nodiscard]] DraftDraws draws() const override;
    [[nodiscard]] const HydraConfig& config() const;

protected:
    [[nodiscard]] std::vector<SequenceTree> do_propose(std::span<const SequenceFeedback> feedback,
                                                       DraftBudget budget) override;
    void do_forget(SequenceId sequence) override;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace outrider
