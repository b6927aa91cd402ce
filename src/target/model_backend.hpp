// What LlamaModel keeps of a checkpoint's matrices: one class per way of computing the pass.
#pragma once

#include <c10/core/Device.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <outrider/core/detail/thread_team.hpp>
#include <outrider/target/detail/target_pass.hpp>
#include <outrider/target/model_config.hpp>

#include "weight_source.hpp"

namespace outrider {

/// Weights, immutable, in the form that one kind of pass needs.
class ModelBackend {
public:
    virtual ~ModelBackend() = default;

    /// A pass that shares these weights and keeps them alive.
    [[nodiscard]] virtual std::unique_ptr<TargetPass> make_pass(std::shared_ptr<const ModelBackend> self) const = 0;
    [[nodiscard]] virtual Weights weights() const = 0;
    [[nodiscard]] virtual std::string description() const = 0;
    [[nodiscard]] virtual std::size_t bytes() const = 0;

    /// The matrix "embed" or "output" [V, H] where it lies on the device in a form that rows can be taken of; undefined
    /// where rows come from the file.
    [[nodiscard]] virtual at::Tensor table(std::string_view name) const {
        (void)name;
        return {};
    }

    /// Of its passes; null where they have none of their own.
    [[nodiscard]] virtual std::shared_ptr<ThreadTeam> shared_team() const { return nullptr; }

protected:
    ModelBackend() = default;
    ModelBackend(const ModelBackend&) = delete;
    ModelBackend& operator=(const ModelBackend&) = delete;
};

/// Plain tensor operations; f32 or bf16 on any device.
[[nodiscard]] std::shared_ptr<const ModelBackend> make_aten_backend(const WeightSource& source,
                                                                    const ModelConfig& config, at::Device device,
                                                                    Weights weights);

/// Whether the kernels can run such a model.
[[nodiscard]] inline bool kernels_fit(const ModelConfig& config) { return config.head_dim % 16 == 0; }

/// The library's kernels; every format, CPU. `source` is shared: embeddings are read from the file row by row.
[[nodiscard]] std::shared_ptr<const ModelBackend> make_kernel_backend(std::shared_ptr<const WeightSource> source,
                                                                      const ModelConfig& config, Weights weights,
                                                                      int threads);

}  // namespace outrider
