// Medusa's heads (Cai et al. 2024, arXiv 2401.10774): named weights and the forward that training and inference share.
// Device and types follow the tensors; float64 serves gradient checks.
//
// With n committed tokens, the feature is h_{n-1} and the pending token x_n is known; head i guesses x_{n+1+i}, the
// node at depth i + 1. (In the paper's count this is head i + 1: its base head has already given the pending token.)
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <outrider/core/detail/export.hpp>
#include <outrider/draft/medusa/detail/medusa_config.hpp>
#include <outrider/draft/nn/detail/layers.hpp>
#include <outrider/target/target_head.hpp>
#include <vector>

namespace outrider {

/// All that is trained.
struct OUTRIDER_API MedusaWeights {
    struct Block {
        at::Tensor weight;  ///< [H, H]
        at::Tensor bias;    ///< [H]
    };
    std::vector<std::vector<Block>> heads;  ///< [K][blocks]: x + silu(W x + b)
    std::vector<at::Tensor> output;         ///< K matrices [V, H] (own), one (shared) or none (target)

    /// Names as in model.safetensors, in this order: heads.I.J.weight, heads.I.J.bias, output.I (own) or output
    /// (shared).
    [[nodiscard]] NamedWeights named();
    [[nodiscard]] NamedConstWeights named() const;
};

/// A head starts as the target's own output: W zero, b small, output rows those of the target. A pure function of
/// config and seed; float32 on the CPU.
[[nodiscard]] OUTRIDER_API MedusaWeights init_medusa_weights(const MedusaConfig& config, const TargetHead& head,
                                                             std::uint64_t seed);

/// Shapes that the config asks for; throws Error naming the weight that differs or is missing. With an empty vocabulary
/// the output matrices' rows are the caller's to check.
OUTRIDER_API void check_medusa_weights(const MedusaConfig& config, const MedusaWeights& weights);

/// What head `head` makes of `features` [A, H] (h_{n-1} of each anchor): [A, H] in the type of the weights.
[[nodiscard]] OUTRIDER_API at::Tensor medusa_state(const MedusaConfig& config, const MedusaWeights& weights,
                                                   std::int64_t head, const at::Tensor& features,
                                                   at::ScalarType compute);

/// The matrix [V, H] that turns head `head`'s states into logits. `tables` serves HeadOutput::target alone.
[[nodiscard]] OUTRIDER_API const at::Tensor& medusa_output(const MedusaConfig& config, const MedusaWeights& weights,
                                                           const TargetTables& tables, std::int64_t head);

/// All heads' scores over the draft vocabulary: [K, A, V] of type `compute`.
[[nodiscard]] OUTRIDER_API at::Tensor medusa_logits(const MedusaConfig& config, const MedusaWeights& weights,
                                                    const TargetTables& tables, const at::Tensor& features,
                                                    at::ScalarType compute);

/// Weights from and to `folder`/model.safetensors, stored as bfloat16.
[[nodiscard]] OUTRIDER_API MedusaWeights read_medusa_weights(const std::filesystem::path& folder,
                                                             const MedusaConfig& config,
                                                             WeightType type = WeightType::float32);
OUTRIDER_API void write_medusa_weights(const std::filesystem::path& folder, const MedusaWeights& weights);

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/medusa/detail/medusa_network-inl.hpp>
#endif
