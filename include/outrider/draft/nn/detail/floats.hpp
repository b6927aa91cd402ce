// Tensors as plain floats on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace outrider {

/// x as contiguous float32 on the CPU: x itself where it is that already, since a new tensor costs microseconds.
[[nodiscard]] inline at::Tensor cpu_floats(const at::Tensor& x) {
    if (x.device().is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() && !x.requires_grad()) return x;
    return x.detach().to(at::kCPU, at::kFloat).contiguous();
}

/// The tensor's values as float32 on the CPU.
[[nodiscard]] inline std::vector<float> floats_of(const at::Tensor& tensor) {
    const at::Tensor flat = cpu_floats(tensor);
    return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

/// The first `columns` values of the last of x's rows. On a device one row is enough to fetch.
[[nodiscard]] inline std::vector<float> last_row(const at::Tensor& x, std::int64_t columns) {
    const at::Tensor rows = cpu_floats(x.device().is_cpu() ? x : x.slice(0, x.size(0) - 1));
    const float* last = rows.const_data_ptr<float>() + (rows.size(0) - 1) * rows.size(1);
    return {last, last + columns};
}

}  // namespace outrider
