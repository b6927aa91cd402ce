// What a CTC drafter is, beside its weights: sizes, the target it belongs to, the tokens it can name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/draft/nn/detail/head_output.hpp>

namespace outrider {

/// Whether frames know the drafted prefix.
enum class CtcConditioning : unsigned char {
    none,    ///< plain frames (Wen, Gui, Feng 2024)
    prefix,  ///< a prediction network adds scores that depend on the prefix's last two tokens and the feature
};

/// The file config.json of a drafter folder, kind "ctc".
struct CtcConfig {
    static constexpr int kVersion = 1;

    std::int64_t hidden = 0;  ///< H, the target's
    std::int64_t layers = 1;  ///< decoder layers
    std::int64_t heads = 0;   ///< of each
    std::int64_t kv_heads = 0;
    std::int64_t head_dim = 64;
    std::int64_t intermediate = 0;  ///< of the gated MLPs
    std::int64_t frames = 8;        ///< T
    CtcConditioning conditioning = CtcConditioning::prefix;
    /// Layers of the target whose residual streams the network reads beside the final features, ascending; see
    /// TargetHead::feature_columns. (EAGLE-3, Li et al. 2025, arXiv 2503.01840, fuses features of several layers.)
    std::vector<std::int64_t> feature_layers = {};
    std::int64_t prefix_rank = 256;  ///< R, width of the prediction network
    /// r: a matrix [r, R] stands between the network and its output rows, so that a drafted prefix costs a product with
    /// [V, r]; 0: none.
    std::int64_t prefix_bottleneck = 0;
    HeadOutput prefix_output = HeadOutput::own;  ///< its output rows: one matrix [V, R or r], or the target's rows
    double rope_theta = 10000.0;
    double norm_eps = 1e-5;
    double embedding_scale = 1.0;     ///< brings the target's embeddings to unit size
    double feature_scale = 1.0;       ///< and its final features; those of layers have unit size
    std::string target_fingerprint;   ///< see TargetHead
    std::string target_name;          ///< for people
    std::vector<TokenId> vocabulary;  ///< [V] the draft vocabulary: target id of each column, ascending
    std::string training = "{}";      ///< JSON object: how it was trained, kept as it is
};

/// Reads and checks `folder`/config.json. Throws Error that names the file and the key.
[[nodiscard]] OUTRIDER_API CtcConfig read_ctc_config(const std::filesystem::path& folder);

/// Writes `folder`/config.json; the folder is made where it is missing.
OUTRIDER_API void write_ctc_config(const std::filesystem::path& folder, const CtcConfig& config);

/// Columns of features that the network reads: H, and H more for each feature layer.
[[nodiscard]] inline std::int64_t ctc_feature_width(const CtcConfig& config) {
    return config.hidden * (1 + static_cast<std::int64_t>(config.feature_layers.size()));
}

/// Columns of the prediction network's output matrix: r with a bottleneck, else R.
[[nodiscard]] inline std::int64_t ctc_prefix_columns(const CtcConfig& config) {
    return config.prefix_bottleneck > 0 ? config.prefix_bottleneck : config.prefix_rank;
}

/// Throws Error unless the sizes go together.
OUTRIDER_API void check_ctc_config(const CtcConfig& config);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_config-inl.hpp>
#endif
