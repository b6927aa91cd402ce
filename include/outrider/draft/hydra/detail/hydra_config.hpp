// What a Hydra or Hydra++ drafter is, beside its weights: sizes, the target it belongs to, the tokens it can name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/draft/nn/detail/head_output.hpp>
#include <string>
#include <vector>

namespace outrider {

/// What a head's first block adds to: y = r(x) + silu(W x + b), x = [g; E(x_n); ..; E(x_{n+i})].
enum class HydraResidual : unsigned char {
    feature,  ///< r(x) = g: half the weights
    matrix,   ///< r(x) = R x + b_r (as published)
};

/// The file config.json of a drafter folder, kind "hydra".
struct HydraConfig {
    static constexpr int kVersion = 1;

    std::int64_t hidden = 0;  ///< H, the target's
    std::int64_t heads = 4;   ///< K
    std::int64_t blocks = 1;  ///< of each head: the first sees the drafted path, the others are residual blocks
    HydraResidual residual = HydraResidual::feature;
    HeadOutput output = HeadOutput::target;
    bool output_bias = false;  ///< own or shared output matrices come with one [V] (as published)

    bool prefix_layer = false;         ///< Hydra++: a decoder layer over the committed features
    std::int64_t attention_heads = 0;  ///< of that layer, as the next four
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 64;
    std::int64_t intermediate = 0;
    double rope_theta = 10000.0;
    double norm_eps = 1e-5;

    double embedding_scale = 1.0;     ///< brings the target's embeddings to unit size; 1 as published
    double feature_scale = 1.0;       ///< and its features
    std::string target_fingerprint;   ///< see TargetHead
    std::string target_name;          ///< for people
    std::vector<TokenId> vocabulary;  ///< [V] the draft vocabulary, ascending; empty: the target's whole one, in order
    /// [K][ranks] share of held-out positions at which the head's token of that rank was the text's, given that the
    /// path before it was; empty: not measured.
    std::vector<std::vector<double>> accuracies;
    std::string training = "{}";  ///< JSON object: how it was trained, kept as it is
};

/// Reads and checks `folder`/config.json. Throws Error that names the file and the key.
[[nodiscard]] OUTRIDER_API HydraConfig read_hydra_config(const std::filesystem::path& folder);

/// Writes `folder`/config.json; the folder is made where it is missing.
OUTRIDER_API void write_hydra_config(const std::filesystem::path& folder, const HydraConfig& config);

/// Throws Error unless the sizes go together.
OUTRIDER_API void check_hydra_config(const HydraConfig& config);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/hydra/detail/hydra_config-inl.hpp>
#endif
