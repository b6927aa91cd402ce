// A drafter with trained weights: what all kinds of them have in common for those who use them.
#pragma once

#include <concepts>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <outrider/core/detail/translate.hpp>
#include <outrider/draft/drafter.hpp>
#include <outrider/target/target_head.hpp>

namespace outrider {

/// What drafts behind a TrainedDraft, with the protocol of DraftModel.
template <typename Config>
class DraftEngine {
public:
    virtual ~DraftEngine() = default;
    [[nodiscard]] virtual std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                            DraftBudget budget) = 0;
    virtual void forget(SequenceId sequence) = 0;
    [[nodiscard]] virtual DraftDraws draws() const = 0;
    [[nodiscard]] virtual FeatureRequest features() const { return {}; }
    [[nodiscard]] virtual const Config& config() const = 0;
    [[nodiscard]] virtual std::size_t weight_bytes() const = 0;
};

/// A kind says its name, its types Config, Weights and Options, how a folder is read and what drafts. Movable; calls on
/// one object take turns.
template <typename Kind>
class TrainedDraft final : public DraftModel {
public:
    using Config = typename Kind::Config;
    using Weights = typename Kind::Weights;
    using Options = typename Kind::Options;

    /// `folder`: config.json and model.safetensors, as `outrider train` writes them, or (Medusa, Hydra) a published
    /// checkpoint, keys as its authors wrote them. Throws Error for damaged files and for another target.
    [[nodiscard]] static TrainedDraft load(const std::filesystem::path& folder, const TargetHead& head,
                                           const Options& options = {}) {
        return detail::translate([&] {
            auto [config, weights] = Kind::read(folder, head);
            return TrainedDraft(std::move(config), std::move(weights), head, options);
        });
    }

    /// The same, for anything that has a head(): a LlamaModel.
    template <typename Model>
        requires requires(const Model& model) {
            { model.head() } -> std::convertible_to<TargetHead>;
        }
    [[nodiscard]] static TrainedDraft load(const std::filesystem::path& folder, const Model& model,
                                           const Options& options = {}) {
        return load(folder, TargetHead(model.head()), options);
    }

    /// From weights in memory, on their device. Throws Error where sizes, weights and target do not go together. An
    /// empty target fingerprint (Medusa, Hydra: published heads name no target) fits every target of these sizes.
    TrainedDraft(Config config, Weights weights, const TargetHead& head, const Options& options = {})
        : engine_(
              detail::translate([&] { return Kind::engine(std::move(config), std::move(weights), head, options); })) {}

    [[nodiscard]] std::string_view kind() const override { return Kind::kName; }
    [[nodiscard]] DraftDraws draws() const override { return engine_->draws(); }
    [[nodiscard]] FeatureRequest features() const override { return engine_->features(); }
    [[nodiscard]] std::size_t weight_bytes() const override { return engine_->weight_bytes(); }
    [[nodiscard]] const Config& config() const { return engine_->config(); }

    [[nodiscard]] std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback,
                                                    DraftBudget budget) override {
        return engine_->propose(feedback, budget);
    }
    void forget(SequenceId sequence) override { engine_->forget(sequence); }

private:
    std::unique_ptr<DraftEngine<Config>> engine_;
};

}  // namespace outrider
