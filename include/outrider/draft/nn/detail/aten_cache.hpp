// Keys and values of one sequence that grow, in tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <outrider/draft/nn/detail/aten.hpp>

namespace outrider {

struct AtenSlots {
    at::Tensor keys, values;  ///< [capacity, kv_heads, head_dim]
    std::int64_t size = 0;

    void append(const at::Tensor& k, const at::Tensor& v) {
        const std::int64_t end = size + k.size(0);
        if (!keys.defined() || end > keys.size(0)) {
            const std::int64_t capacity = std::max<std::int64_t>(64, 2 * end);
            const at::Tensor more_k = aten::empty({capacity, k.size(1), k.size(2)}, k.options());
            const at::Tensor more_v = aten::empty_like(more_k);
            if (size > 0)
                more_k.slice(0, 0, size).copy_(keys.slice(0, 0, size)),
                    more_v.slice(0, 0, size).copy_(values.slice(0, 0, size));
            keys = more_k, values = more_v;
        }
        keys.slice(0, size, end).copy_(k);
        values.slice(0, size, end).copy_(v);
        size = end;
    }
};

}  // namespace outrider
