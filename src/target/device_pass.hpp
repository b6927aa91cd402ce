// The target pass for devices, in tensor operations: few of them, of fixed shapes, whatever the number of sequences.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include <outrider/target/model_config.hpp>

#include "model_backend.hpp"

namespace outrider {

/// What the caches of one pass may hold; 0: see device_cache_tokens.
struct DeviceCacheLimits {
    std::int64_t tokens = 0;
    std::int64_t sequences = 64;
};

/// Eight contexts, as far as 4 GiB hold them.
[[nodiscard]] std::int64_t device_cache_tokens(const ModelConfig& config, std::size_t token_bytes);

/// Weights in f32 or bf16 on any device, the CPU among them (where it serves tests: the kernels are faster).
///
/// A layer is 17 operations (two norms, four products, three for the rotation, one each to store, to gather, to attend
/// and to put rows in order, two to put them back, two for the gate) for any number of sequences; what a family adds to
/// a Llama comes on top of them, 24 at most in f32. Keys and values lie in a KvPool. Everything that changes from
/// forward to forward comes in one copy from pinned memory; the largest logits' tokens are the only thing that goes
/// back. Norms and residual sums round once, where the reference (aten_pass.cpp) rounds twice.
[[nodiscard]] std::shared_ptr<const ModelBackend> make_device_backend(const WeightSource& source,
                                                                      const ModelConfig& config, at::Device device,
                                                                      Weights weights, const DeviceCacheLimits& limits);

}  // namespace outrider
