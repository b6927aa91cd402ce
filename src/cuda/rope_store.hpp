// Rotary positions of one row's queries and keys, and its keys and values on their way to the cache.
#pragma once

#include "block.hpp"

namespace outrider::cuda {

template <typename T>
struct RopeStore {
    T* qkv;                        ///< [rows, heads + 2 kv_heads, head_dim]; queries and keys are turned in place
    T* store;                      ///< [slots, 2 kv_heads, head_dim] keys, then values
    const T* turns;                ///< [positions, 2, head_dim] cosines, and sines with the sign of their half
    const std::int64_t* position;  ///< [rows]
    const std::int64_t* slot;      ///< [rows]
    std::int64_t heads, kv_heads, head_dim;
    std::int64_t rotated;  ///< dimensions that turn; pair i is i and i + rotated / 2

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        const std::int64_t D = head_dim, half = rotated / 2, turning = heads + kv_heads;
        T* own = qkv + row * (heads + 2 * kv_heads) * D;
        const T *cos = turns + position[row] * 2 * D, *sin = cos + D;
        for (std::int64_t i = block.thread(); i < turning * half; i += block.threads()) {
            T* head = own + i / half * D;
            const std::int64_t j = i % half, k = j + half;
            const float a = static_cast<float>(head[j]), b = static_cast<float>(head[k]);
            head[j] = T(a * static_cast<float>(cos[j]) + b * static_cast<float>(sin[j]));
            head[k] = T(b * static_cast<float>(cos[k]) + a * static_cast<float>(sin[k]));
        }
        block.sync();
        const T* kept = own + heads * D;
        T* to = store + slot[row] * 2 * kv_heads * D;
        for (std::int64_t i = block.thread(); i < 2 * kv_heads * D; i += block.threads()) to[i] = kept[i];
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

}  // namespace outrider::cuda
