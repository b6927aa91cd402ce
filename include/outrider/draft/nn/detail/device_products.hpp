// Products and copies that drafters on a device are made of.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>
#include <outrider/draft/nn/detail/aten.hpp>

namespace outrider::detail {

/// x [n, k] rows^T [m, k] in f32, whatever their type.
[[nodiscard]] inline at::Tensor product_in_f32(const at::Tensor& x, const at::Tensor& rows) {
    if (x.scalar_type() == at::kFloat) return aten::mm(x, rows.t());
    return x.is_cuda() ? aten::mm(x, rows.t(), at::kFloat) : aten::mm(x, rows.t()).to(at::kFloat);
}

/// Parts one below the other into the first rows of `to`, which keeps its memory.
inline void fill_rows(const at::Tensor& to, const std::vector<at::Tensor>& parts) {
    if (parts.empty()) return;
    std::int64_t rows = 0;
    const bool here = std::ranges::all_of(parts, [&](const at::Tensor& x) { return x.device() == to.device(); });
    for (const at::Tensor& part : parts) {
        if (!here || parts.size() == 1) to.narrow(0, rows, part.size(0)).copy_(part, true);
        rows += part.size(0);
    }
    if (!here || parts.size() == 1) return;
    at::Tensor out = to.narrow(0, 0, rows);
    aten::cat_out(out, parts);
}

}  // namespace outrider::detail
