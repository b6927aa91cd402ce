// Medusa drafting (Cai et al. 2024, arXiv 2401.10774): every head looks at the newest feature alone, and the draft is a
// tree of their likeliest tokens.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <utility>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/medusa/detail/medusa_config.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>
#include <outrider/draft/nn/detail/head_options.hpp>
#include <outrider/draft/nn/detail/trained_draft.hpp>

namespace outrider {

/// Trained Medusa heads. A path's probability is the product of its tokens' probabilities, head by head.
struct OUTRIDER_API MedusaKind {
    using Config = MedusaConfig;
    using Weights = MedusaWeights;
    using Options = HeadDraftOptions;
    static constexpr std::string_view kName = "medusa";

    /// Weights on the target's device.
    [[nodiscard]] static std::pair<Config, Weights> read(const std::filesystem::path& folder, const TargetHead& head);
    [[nodiscard]] static std::unique_ptr<DraftEngine<Config>> engine(Config config, Weights weights,
                                                                     const TargetHead& head, const Options& options);
};

using MedusaDraft = TrainedDraft<MedusaKind>;

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/medusa/detail/medusa_draft-inl.hpp>
#endif
