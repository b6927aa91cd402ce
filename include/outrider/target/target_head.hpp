// What a trained drafter borrows from its target: embeddings, output rows and the final norm, all frozen.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <outrider/core/types.hpp>

namespace outrider {

class ThreadTeam;  // of the CPU's kernels

/// A view of a target's tables. The functions keep the target alive; they are safe to call at any time.
struct TargetHead {
    std::string fingerprint;      ///< tells targets apart: a drafter refuses a target it was not trained for
    std::int64_t hidden = 0;      ///< H, also the width of the final features
    std::int64_t vocabulary = 0;  ///< V
    std::function<at::Tensor(std::span<const TokenId>)> embed;  ///< ids [n] -> float32 [n, H], as layer 1 reads it
    std::function<at::Tensor(std::span<const TokenId>)> output_rows;  ///< ids [n] -> float32 [n, H]
    at::Tensor final_norm;  ///< [H] float32 weight of the RMS norm before the output matrix
    double norm_eps = 1e-5;
    std::string tokenizer = {};  ///< tells tokenizers apart: equal only where every id means the same bytes
    /// Layers 1 to this one can be asked for in a FeatureRequest; 0: there are only the final features.
    std::int64_t feature_layers = 0;
    /// The threads of the target's passes, which rest while a drafter works; null where the target has none to lend.
    std::shared_ptr<ThreadTeam> team = nullptr;
};

}  // namespace outrider
