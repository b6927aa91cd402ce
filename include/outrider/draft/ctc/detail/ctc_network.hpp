// The CTC drafter's network: named weights and the forward that training and inference share. Device and types follow
// the tensors; float64 serves gradient checks.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/ctc/detail/ctc_config.hpp>
#include <outrider/draft/nn/detail/layers.hpp>
#include <outrider/target/target_head.hpp>
#include <string>
#include <utility>
#include <vector>

namespace outrider {

/// All that is trained. N = heads * head_dim, K = kv_heads * head_dim.
struct OUTRIDER_API CtcWeights {
    at::Tensor fuse;  ///< [H, (2 + k) H] u_j = fuse [E(x_{j+1}); h_j; h_j after each of the k feature layers]
    std::vector<LayerWeights>
        layers;                ///< frames go through all of them; each has keys and values of the u_j of its own
    at::Tensor queries;        ///< [T, H] added to the pending token's fused state
    at::Tensor final_norm;     ///< [H] starts as the target's
    at::Tensor blank;          ///< [1, H] and its bias: logit of p(blank)
    at::Tensor blank_bias;     ///< [1]
    at::Tensor prefix_in;      ///< [R, 3 H] over [E(last); E(last but one); h]; undefined without conditioning
    at::Tensor prefix_bias;    ///< [R]
    at::Tensor prefix_narrow;  ///< [r, R]; undefined without a bottleneck
    at::Tensor prefix_out;  ///< [V, r], r = R without a bottleneck; with the target's output rows W [V, H]: [H, r], and
                            ///< W prefix_out in its place

    /// Names as in model.safetensors, in this order; undefined ones left out.
    [[nodiscard]] NamedWeights named();
    [[nodiscard]] NamedConstWeights named() const;
};

/// Of its decoder layers.
[[nodiscard]] inline LayerSizes layer_sizes(const CtcConfig& config) {
    return {config.heads, config.kv_heads, config.head_dim, config.rope_theta, config.norm_eps};
}

/// The target's embeddings and its output rows of the draft vocabulary.
using CtcTables = TargetTables;
[[nodiscard]] OUTRIDER_API CtcTables make_ctc_tables(const CtcConfig& config, const TargetHead& head,
                                                     at::ScalarType type, at::Device device);

/// Where training starts: the frames say what the target said at h_{n-1}, whatever the frame and the drafted prefix.
/// All that leads away from there is zero (the embedding's and the inner layers' part of `fuse`, both ways back to the
/// residual stream, `prefix_in`) or random where its partner is zero, as Hydra's heads start. A random start learns far
/// more slowly: docs/training.md, "Where it starts". A pure function of config and seed; float32 on the CPU.
[[nodiscard]] OUTRIDER_API CtcWeights init_ctc_weights(const CtcConfig& config, const TargetHead& head,
                                                       std::uint64_t seed);

/// Shapes that the config asks for; throws Error naming the weight that differs or is missing.
OUTRIDER_API void check_ctc_weights(const CtcConfig& config, const CtcWeights& weights);

/// The context of one sequence (or conversation): u_0..u_{L-1} and each layer's keys and values over them. The u_j go
/// through no layer themselves, so taking up a committed token costs two small products a layer.
struct CtcContext {
    at::Tensor fused;                  ///< [L, H]
    std::vector<LayerContext> layers;  ///< [L, kv_heads, head_dim] each, positions applied to the keys
};

/// Runs fuse, norm, k and v over rows of any sequences. `next` [L] int64: x_{j+1}; `features` [L, (1 + k) H]: h_j, then
/// those of the feature layers in the config's order, of unit size; `positions`
/// [L] int64: j.
[[nodiscard]] OUTRIDER_API CtcContext ctc_context(const CtcConfig& config, const CtcWeights& weights,
                                                  const CtcTables& tables, const at::Tensor& next,
                                                  const at::Tensor& features, const at::Tensor& positions,
                                                  at::ScalarType compute);

/// Anchors that share a context.
using CtcAnchors = ContextGroup;

struct CtcFrameScores {
    at::Tensor logits;  ///< [A * T, V] of type `compute`: scores over the draft vocabulary, blank apart
    at::Tensor gate;    ///< [A * T] float32 or float64: logit of p(blank)
};

/// One pass of the frames. `fused` [A, H]: u_{n-1} of each anchor; `committed` [A] int64: n, the keys it sees and the
/// position of its first frame; `groups`: for each layer, those that cover the A anchors in order.
[[nodiscard]] OUTRIDER_API CtcFrameScores ctc_frames(const CtcConfig& config, const CtcWeights& weights,
                                                     const CtcTables& tables, const at::Tensor& fused,
                                                     const at::Tensor& committed,
                                                     const std::vector<std::vector<CtcAnchors>>& groups,
                                                     at::ScalarType compute);

/// What a drafted prefix adds to the frames' scores: [A * P, V]. `last`, `last_but_one` [A, P] int64 tokens (negative:
/// none); `features` [A, H or more]: h_{n-1} of each anchor first.
[[nodiscard]] OUTRIDER_API at::Tensor ctc_prefix_scores(const CtcConfig& config, const CtcWeights& weights,
                                                        const CtcTables& tables, const at::Tensor& last,
                                                        const at::Tensor& last_but_one, const at::Tensor& features,
                                                        at::ScalarType compute);

/// Weights from and to `folder`/model.safetensors, stored as bfloat16.
[[nodiscard]] OUTRIDER_API CtcWeights read_ctc_weights(const std::filesystem::path& folder, const CtcConfig& config,
                                                       WeightType type = WeightType::float32);
OUTRIDER_API void write_ctc_weights(const std::filesystem::path& folder, const CtcWeights& weights);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/ctc/detail/ctc_network-inl.hpp>
#endif
