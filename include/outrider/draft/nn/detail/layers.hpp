// What the networks of trained drafters share: frozen tables of the target, mixed-precision products and one decoder
// layer over committed features. Differentiable throughout; device and types follow the tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/draft/nn/detail/head_output.hpp>
#include <outrider/target/target_head.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace outrider {

/// How weights are read from a file: as float32, or as they are stored where that is bfloat16: views of the mapped
/// file, which must not be written to. What drafts takes either.
enum class WeightType : unsigned char { float32, stored };

/// Names of weights as in model.safetensors, and where they stand.
using NamedWeights = std::vector<std::pair<std::string, at::Tensor*>>;
using NamedConstWeights = std::vector<std::pair<std::string, const at::Tensor*>>;

[[nodiscard]] OUTRIDER_API std::size_t bytes_of(const NamedConstWeights& weights);

/// Frozen tables of the target, in the type that products are computed in.
struct OUTRIDER_API TargetTables {
    at::Tensor embedding;  ///< [target vocabulary, H] times embedding_scale; rows of tokens the drafter may meet
    at::Tensor output;     ///< [V, H] the target's output rows of the draft vocabulary

    [[nodiscard]] std::size_t bytes() const;
};

/// `vocabulary`: the draft vocabulary; empty: the target's whole one in the order of its ids.
[[nodiscard]] OUTRIDER_API TargetTables make_target_tables(const TargetHead& head,
                                                           const std::vector<TokenId>& vocabulary,
                                                           double embedding_scale, at::ScalarType type,
                                                           at::Device device);

/// The ids that `vocabulary` means: itself, or 0 .. size - 1 where it is empty.
[[nodiscard]] OUTRIDER_API std::vector<TokenId> draft_ids(const std::vector<TokenId>& vocabulary,
                                                          std::int64_t target_vocabulary);

/// [n, H] rows of tables.embedding for `tokens` [n] int64; zero where a token is negative.
[[nodiscard]] OUTRIDER_API at::Tensor embed_tokens(const TargetTables& tables, const at::Tensor& tokens);

/// y = x W^T, computed in `compute` whatever the operands' types; the result has type `compute`. Differentiable by
/// both. With float32 weights and bfloat16 products this is mixed precision. x [rows, in].
[[nodiscard]] OUTRIDER_API at::Tensor mixed_linear(const at::Tensor& x, const at::Tensor& weight,
                                                   at::ScalarType compute);

/// x + silu(x W^T + b), x [rows, H]: the residual block of Medusa's and Hydra's heads. Of x's type.
[[nodiscard]] OUTRIDER_API at::Tensor residual_block(const at::Tensor& x, const at::Tensor& weight,
                                                     const at::Tensor& bias, at::ScalarType compute);

/// Shape of a decoder layer beside its weights.
struct LayerSizes {
    std::int64_t heads = 0, kv_heads = 0, head_dim = 64;
    double rope_theta = 10000.0, norm_eps = 1e-5;
};

/// RMS norm, grouped attention with rotary positions, RMS norm, gated MLP; both with residuals. N = heads * head_dim,
/// K = kv_heads * head_dim.
struct LayerWeights {
    at::Tensor attn_norm;  ///< [H]
    at::Tensor qkv;        ///< [N + 2 K, H] rows of q, then k, then v
    at::Tensor attn_out;   ///< [H, N]
    at::Tensor mlp_norm;   ///< [H]
    at::Tensor gate_up;    ///< [2 I, H] rows of gate, then up
    at::Tensor down;       ///< [H, I]
};

/// Keys and values of L rows, [L, kv_heads, head_dim] each; positions are applied to the keys.
struct LayerContext {
    at::Tensor keys, values;
};

/// Rows x [L, H] at `positions` [L] int64.
[[nodiscard]] OUTRIDER_API LayerContext layer_context(const LayerSizes& sizes, const LayerWeights& weights,
                                                      const at::Tensor& x, const at::Tensor& positions,
                                                      at::ScalarType compute);

/// Anchors that share a context: `count` of them, one after another in the batch.
struct ContextGroup {
    at::Tensor keys, values;  ///< [L, kv_heads, head_dim], L may be 0
    std::int64_t count = 1;
};

/// The layer over A anchors of T rows each: x [A * T, H] at `positions` [A * T]. A row sees the first `seen[a]` keys
/// ([A] int64) of its group's context and all T rows of its anchor. `groups` cover the anchors in order. [A * T, H].
[[nodiscard]] OUTRIDER_API at::Tensor layer_rows(const LayerSizes& sizes, const LayerWeights& weights,
                                                 const at::Tensor& x, const at::Tensor& positions,
                                                 const at::Tensor& seen, const std::vector<ContextGroup>& groups,
                                                 at::ScalarType compute);

/// x / sqrt(mean(x^2) + eps) * weight of x [rows, H].
[[nodiscard]] OUTRIDER_API at::Tensor final_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps,
                                                     at::ScalarType compute);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/layers-inl.hpp>
#endif
