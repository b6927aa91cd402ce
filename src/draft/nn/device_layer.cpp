#include <outrider/draft/nn/detail/device_layer.hpp>

#include "target/device_kernels.hpp"

namespace outrider::detail {

bool has_layer_kernels(c10::Device device) { return device_kernels_run(device); }

void turn_and_store(const at::Tensor& heads, const at::Tensor& store, const at::Tensor& turns,
                    const at::Tensor& position, const at::Tensor& slot) {
    place_rows(
        heads, store,
        {.turns = turns, .position = position, .slot = slot, .norm = {}, .query_scale = {}, .rotated = turns.size(-1)});
}

at::Tensor silu_gate(const at::Tensor& gate_up) { return gated(gate_up, false); }

}  // namespace outrider::detail
