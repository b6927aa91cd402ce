// What the layers of one forward of a device pass share: which positions each row sees, and where they lie.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "device_backend.hpp"
#include "device_inputs.hpp"
#include "device_kernels.hpp"
#include "kv_pool.hpp"

namespace outrider {

/// The one block that goes to the device, of one shape.
struct DeviceBlock {
    DeviceInputs inputs;
    at::Tensor block;  // [inputs.size()] int64 on the device

    [[nodiscard]] at::Tensor part(DeviceInputs::Part which) const { return inputs.part(block, which); }
};

/// What the layers of one forward share. Where kernels attend, `seen` is there in place of what stands below it.
struct RoundTensors {
    std::vector<AttendedRows> seen;  // of each window
    at::Tensor position;             // [N]
    std::vector<at::Tensor> turns;   // [N, 2, 1, head_dim] of each rotary embedding
    at::Tensor query_scale;          // [N, 1, 1]; undefined: 1
    at::Tensor slot;                 // [N] where keys and values go
    at::Tensor gathered;             // [S L] slots that are looked at
    std::vector<at::Tensor> bias;    // [S, 1, group R, L] of each window: 0, or -infinity where a row does not see a
                                     // position
    at::Tensor
        gathered_heads;      // [2 S kv_heads L] the same as rows of heads, keys first, for attention of capped scores
    at::Tensor query_rows;   // [S kv_heads group R] of q's heads
    at::Tensor output_rows;  // [N heads] of what attention returns
};

class DeviceRounds {
public:
    /// `kernels`: whether they place keys and values, and attend for trees that are not too wide.
    DeviceRounds(std::shared_ptr<const DeviceBackend> model, bool kernels);

    [[nodiscard]] const std::shared_ptr<KvPool>& pool() const { return pool_; }
    [[nodiscard]] bool kernels_attend(const DeviceShape& shape) const;
    [[nodiscard]] DeviceBlock make_block(const DeviceShape& shape);
    /// The one copy to the device.
    void send(DeviceBlock& block, std::span<const RowSegment> segments) const;
    [[nodiscard]] RoundTensors prepare(const DeviceShape& shape, const DeviceBlock& block) const;

private:
    [[nodiscard]] const ModelConfig& config() const { return model_->config; }
    [[nodiscard]] std::int64_t group() const { return config().heads / config().kv_heads; }
    void prepare_operations(const DeviceShape& shape, const DeviceBlock& block, RoundTensors& round) const;
    [[nodiscard]] at::Tensor of_window(const DeviceBlock& block, DeviceInputs::Part part, std::size_t window) const;
    [[nodiscard]] at::Tensor bias_of(const DeviceShape& shape, const DeviceBlock& block, std::size_t window,
                                     const at::Tensor& behind, const at::Tensor& live) const;

    std::shared_ptr<const DeviceBackend> model_;
    std::shared_ptr<KvPool> pool_;
    bool kernels_;
    at::Tensor positions_;                                                   // [columns] 0, 1, 2, ...
    at::Tensor shifts_;                                                      // [64] 0 .. 63
    at::Tensor cache_heads_;                                                 // [2, 1, kv_heads, 1] 0 .. 2 kv_heads - 1
    at::Tensor seen_, unseen_;                                               // 0 and -infinity, of the pass's type
    std::map<std::int64_t, std::pair<at::Tensor, at::Tensor>> head_places_;  // by R: of q, of the output
};

}  // namespace outrider
