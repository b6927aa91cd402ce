// What a trained drafter borrows from its target: embeddings, output rows and the final norm, all frozen.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <outrider/core/detail/export.hpp>
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
    /// The tables themselves [V, H], of any type, for drafters on their device, which then copy no rows and compute in
    /// their type; undefined where there are none to lend. Rows of `embed` are the embedding's times embedding_scale.
    at::Tensor embedding = {}, output = {};
    double embedding_scale = 1.0;

    /// Of a checkpoint's files, for a host whose own engine runs the target: the same fingerprint and rows as
    /// LlamaModel::head(), and nothing is loaded but what is asked for. Tensors come on `device`. `feature_layers` is
    /// 0; a host whose verifier gives features of inner layers sets it. In the compiled library. Throw Error for what
    /// LlamaModel::load does not take either.
    [[nodiscard]] OUTRIDER_API static TargetHead from_gguf(const std::filesystem::path& file,
                                                           c10::Device device = c10::DeviceType::CPU);
    /// A Hugging Face folder.
    [[nodiscard]] OUTRIDER_API static TargetHead from_folder(const std::filesystem::path& folder,
                                                             c10::Device device = c10::DeviceType::CPU);
};

}  // namespace outrider
