// What a device pass reads: weights and tables on the device, in f32 or bf16.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/target/model_config.hpp>

#include "device_pass.hpp"
#include "model_backend.hpp"

namespace outrider {

/// A matrix, transposed: an [in, out] view of rows as they are stored.
struct DeviceLinear {
    at::Tensor matrix;  // [in, out]
    at::Tensor bias;    // [out]; undefined: none

    [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;
};

/// Tensors that a model has not are undefined. All of the pass's type.
struct DeviceLayer {
    at::Tensor attention_norm, mlp_norm, post_attention_norm, post_mlp_norm;  // [H]
    at::Tensor head_norms;  // [heads + kv_heads, head_dim] of each head, or of all queries and of all keys
    DeviceLinear qkv, o, gate_up, down;
    std::size_t window = 0;  // which of the pass's windows
    int rope = 0;            // which of the pass's rotary embeddings; below 0: none
};

class DeviceBackend final : public ModelBackend {
public:
    DeviceBackend(const WeightSource& source, const ModelConfig& model, at::Device device, Weights weights,
                  const DeviceCacheLimits& cache_limits);

    std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const override;
    Weights weights() const override { return options.dtype() == at::kFloat ? Weights::f32 : Weights::bf16; }
    std::string description() const override { return std::string(name_of(weights())); }
    at::Tensor table(std::string_view name) const override { return name == "embed" ? embedding : output; }
    std::size_t bytes() const override;

    ModelConfig config;
    DeviceCacheLimits limits;
    at::TensorOptions options;
    at::Tensor embedding, output, norm;
    std::vector<at::Tensor> rotations;  // [context, 2, 1, head_dim] cos, and sin with the sign of its half; of all
                                        // layers, or of those without and with a window
    at::Tensor query_scales;            // [context, 1, 1]; undefined: 1
    std::vector<std::int64_t> windows;  // of the layers, each once
    std::vector<DeviceLayer> layers;

private:
    DeviceLayer read_layer(const WeightSource& source, std::int64_t index) const;
    at::Tensor matrix(const WeightSource& source, const std::vector<std::string>& names) const;
    at::Tensor vector(const WeightSource& source, const std::string& name) const;
    at::Tensor rotation_of(const RopeConfig& rope) const;
};

}  // namespace outrider
