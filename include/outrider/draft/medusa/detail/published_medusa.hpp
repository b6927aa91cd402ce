// Medusa's heads as their authors published them: see draft/nn/published_heads.hpp.
#pragma once

#include <filesystem>
#include <utility>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/medusa/detail/medusa_network.hpp>

namespace outrider {

/// A file, or a folder that holds one. float16 and bfloat16 stay as they are. The config has no target fingerprint (the
/// files do not know one) and an empty vocabulary: the target's whole one. Throws Error.
[[nodiscard]] OUTRIDER_API std::pair<MedusaConfig, MedusaWeights> read_published_medusa(
    const std::filesystem::path& path);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/medusa/detail/published_medusa-inl.hpp>
#endif
