// Hydra and Hydra++ drafting (Ankner et al. 2024, arXiv 2402.05109): heads that see the drafted path, and for Hydra++ a
// decoder layer over all committed features.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/hydra/detail/hydra_config.hpp>
#include <outrider/draft/hydra/detail/hydra_network.hpp>
#include <outrider/draft/nn/detail/head_options.hpp>
#include <outrider/draft/nn/detail/trained_draft.hpp>

namespace outrider {

/// Trained Hydra heads. A path's probability is the product of its tokens' probabilities, each given the path before
/// it; best_first finds the N largest exactly, in a few passes of the heads over the nodes that can still have children
/// in the tree, all sequences together.
struct OUTRIDER_API HydraKind {
    using Config = HydraConfig;
    using Weights = HydraWeights;
    using Options = HeadDraftOptions;
    static constexpr std::string_view kName = "hydra";

    /// Weights on the target's device.
    [[nodiscard]] static std::pair<Config, Weights> read(const std::filesystem::path& folder, const TargetHead& head);
    [[nodiscard]] static std::unique_ptr<DraftEngine<Config>> engine(Config config, Weights weights,
                                                                     const TargetHead& head, const Options& options);
};

using HydraDraft = TrainedDraft<HydraKind>;

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/hydra/detail/hydra_draft-inl.hpp>
#endif
