// What a Medusa drafter is, beside its weights: sizes, the target it belongs to, the tokens it can name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/draft/nn/detail/head_output.hpp>
#include <string>
#include <vector>

namespace outrider {

/// The file config.json of a drafter folder, kind "medusa".
struct MedusaConfig {
    static constexpr int kVersion = 1;

    std::int64_t hidden = 0;  ///< H, the target's
    std::int64_t heads = 5;   ///< K
    std::int64_t blocks = 1;  ///< residual blocks of each head
    HeadOutput output = HeadOutput::shared;
    std::string target_fingerprint;   ///< see TargetHead
    std::string target_name;          ///< for people
    std::vector<TokenId> vocabulary;  ///< [V] the draft vocabulary, ascending; empty: the target's whole one, in order
    /// [K][ranks] share of held-out positions at which the head's token of that rank was the text's; empty: not
    /// measured.
    std::vector<std::vector<double>> accuracies;
    std::string training = "{}";  ///< JSON object: how it was trained, kept as it is
};

/// Reads and checks `folder`/config.json. Throws Error that names the file and the key.
[[nodiscard]] OUTRIDER_API MedusaConfig read_medusa_config(const std::filesystem::path& folder);

/// Writes `folder`/config.json; the folder is made where it is missing.
OUTRIDER_API void write_medusa_config(const std::filesystem::path& folder, const MedusaConfig& config);

/// Throws Error unless the sizes go together.
OUTRIDER_API void check_medusa_config(const MedusaConfig& config);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/medusa/detail/medusa_config-inl.hpp>
#endif
