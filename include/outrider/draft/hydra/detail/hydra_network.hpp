// Hydra's sequentially dependent heads, and Hydra++'s prefix layer (Ankner et al. 2024, arXiv 2402.05109): named
// weights and the forward that training and inference share. Device and types follow the tensors; float64 serves
// gradient checks.
//
// With n committed tokens, g_{n-1} is the feature h_{n-1} (Hydra) or what the prefix layer makes of h_0..h_{n-1}
// (Hydra++). Head i sees [g_{n-1}; E(x_n); ..; E(x_{n+i})], where x_n is the pending token and the rest is drafted, and
// guesses x_{n+1+i}, the node at depth i + 1.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/hydra/detail/hydra_config.hpp>
#include <outrider/draft/nn/detail/layers.hpp>
#include <outrider/target/target_head.hpp>
#include <vector>

namespace outrider {

/// All that is trained.
struct OUTRIDER_API HydraWeights {
    struct Block {
        at::Tensor weight;         ///< first block of head i: [H, (i + 2) H]; others: [H, H]
        at::Tensor bias;           ///< [H]
        at::Tensor residual;       ///< first blocks of HydraResidual::matrix: R [H, (i + 2) H]; else undefined
        at::Tensor residual_bias;  ///< [H]
    };
    std::vector<std::vector<Block>> heads;  ///< [K][blocks]
    std::vector<at::Tensor> output;         ///< K matrices [V, H] (own), one (shared) or none (target)
    std::vector<at::Tensor> output_bias;    ///< as many [V], with config.output_bias
    LayerWeights prefix;                    ///< undefined without a prefix layer
    at::Tensor prefix_norm;                 ///< [H] the RMS norm behind it

    /// Names as in model.safetensors, in this order: prefix.*, heads.I.J.{weight, bias, residual, residual_bias},
    /// output.I and output_bias.I (own) or output and output_bias (shared). Undefined ones are left out.
    [[nodiscard]] NamedWeights named();
    [[nodiscard]] NamedConstWeights named() const;
};

/// Of the prefix layer.
[[nodiscard]] inline LayerSizes layer_sizes(const HydraConfig& config) {
    return {config.attention_heads, config.kv_heads, config.head_dim, config.rope_theta, config.norm_eps};
}

/// A head starts as the target's own output (W zero, b small, R picks g, output rows those of the target) and the
/// prefix layer as g = h up to its norm (both ways back to the residual stream zero). A pure function of config and
/// seed; float32 on the CPU.
[[nodiscard]] OUTRIDER_API HydraWeights init_hydra_weights(const HydraConfig& config, const TargetHead& head,
                                                           std::uint64_t seed);

/// Shapes that the config asks for; throws Error naming the weight that differs or is missing. With an empty vocabulary
/// the output matrices' rows are the caller's to check.
OUTRIDER_API void check_hydra_weights(const HydraConfig& config, const HydraWeights& weights);

/// The prefix layer's keys and values over rows of any sequences: `features` [L, H] h_j at `positions` [L] int64 j.
/// Only with config.prefix_layer.
[[nodiscard]] OUTRIDER_API LayerContext hydra_context(const HydraConfig& config, const HydraWeights& weights,
                                                      const at::Tensor& features, const at::Tensor& positions,
                                                      at::ScalarType compute);

/// g_{n-1} [A, H] of each anchor, in the type of the weights. `features` [A, H]: h_{n-1}; `committed` [A] int64: n >=
/// 1; `groups` cover the anchors in order, their keys and values reach at least over h_0..h_{n-2} (they are not looked
/// at without a prefix layer, nor is `committed`).
[[nodiscard]] OUTRIDER_API at::Tensor hydra_ground(const HydraConfig& config, const HydraWeights& weights,
                                                   const at::Tensor& features, const at::Tensor& committed,
                                                   const std::vector<ContextGroup>& groups, at::ScalarType compute);

/// Head `head`'s state: [M, H]. `ground` [M, H]; `embedded` [M, (head + 1) H]: E(x_n), .., E(x_{n+head}) side by side,
/// times embedding_scale.
[[nodiscard]] OUTRIDER_API at::Tensor hydra_state(const HydraConfig& config, const HydraWeights& weights,
                                                  std::int64_t head, const at::Tensor& ground,
                                                  const at::Tensor& embedded, at::ScalarType compute);

/// Scores [M, V] of type `compute` from states of head `head`. `tables` serves HeadOutput::target alone.
[[nodiscard]] OUTRIDER_API at::Tensor hydra_scores(const HydraConfig& config, const HydraWeights& weights,
                                                   const TargetTables& tables, std::int64_t head,
                                                   const at::Tensor& states, at::ScalarType compute);

/// All heads along one path per anchor (teacher forcing): [K, A, V] of type `compute`. `ground` [A, H]; `tokens` [A, K]
/// int64: x_n, .., x_{n+K-1} (negative: an embedding of zeros, for anchors near the end of a text).
[[nodiscard]] OUTRIDER_API at::Tensor hydra_logits(const HydraConfig& config, const HydraWeights& weights,
                                                   const TargetTables& tables, const at::Tensor& ground,
                                                   const at::Tensor& tokens, at::ScalarType compute);

/// Weights from and to `folder`/model.safetensors, stored as bfloat16.
[[nodiscard]] OUTRIDER_API HydraWeights read_hydra_weights(const std::filesystem::path& folder,
                                                           const HydraConfig& config,
                                                           WeightType type = WeightType::float32);
OUTRIDER_API void write_hydra_weights(const std::filesystem::path& folder, const HydraWeights& weights);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/hydra/detail/hydra_network-inl.hpp>
#endif
