// One row's queries and keys on their way to attention: norms, rotary positions, and keys and values to the cache.
#pragma once

#include "block.hpp"

namespace outrider::cuda {

template <typename T>
struct RopeStore {
    T* qkv;                        ///< [rows, heads + 2 kv_heads, head_dim]; queries and keys are changed in place
    T* store;                      ///< [slots, 2 kv_heads, head_dim] keys, then values
    const T* turns;                ///< [positions, 2, head_dim] cosines, and sines with the sign of their half; null:
                                   ///< nothing turns
    const std::int64_t* position;  ///< [rows]
    const std::int64_t* slot;      ///< [rows]
    const T* norm;                 ///< [heads + kv_heads, head_dim] weights of an RMS norm before; null: none
    const T* query_scale;          ///< [positions] of queries, at last; null: 1
    std::int64_t heads, kv_heads, head_dim;
    std::int64_t rotated;  ///< dimensions that turn; pair i is i and i + rotated / 2
    bool whole;            ///< the norm is of all queries, and of all keys; else of each head
    float eps;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t row) const {
        const std::int64_t D = head_dim;
        T* own = qkv + row * (heads + 2 * kv_heads) * D;
        if (norm != nullptr) scale_all(block, own);
        if (turns != nullptr) turn(block, own, turns + position[row] * 2 * D);
        if (query_scale != nullptr) {
            block.sync();
            const float by = static_cast<float>(query_scale[position[row]]);
            for (std::int64_t i = block.thread(); i < heads * D; i += block.threads())
                own[i] = T(static_cast<float>(own[i]) * by);
        }
        block.sync();
        const T* kept = own + heads * D;
        T* to = store + slot[row] * 2 * kv_heads * D;
        for (std::int64_t i = block.thread(); i < 2 * kv_heads * D; i += block.threads()) to[i] = kept[i];
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }

private:
    template <typename Block>
    OUTRIDER_BODY void scale_all(const Block& block, T* own) const {
        const std::int64_t all = (heads + kv_heads) * head_dim;
        for (std::int64_t begin = 0; begin < all;) {
            const std::int64_t width = !whole ? head_dim : begin == 0 ? heads * head_dim : kv_heads * head_dim;
            float sum = 0;
            for (std::int64_t i = begin + block.thread(); i < begin + width; i += block.threads())
                sum += static_cast<float>(own[i]) * static_cast<float>(own[i]);
            const float size = 1.0F / sqrtf(block.sum(sum) / static_cast<float>(width) + eps);
            for (std::int64_t i = begin + block.thread(); i < begin + width; i += block.threads())
                own[i] = T(static_cast<float>(own[i]) * size * static_cast<float>(norm[i]));
            begin += width;
        }
        block.sync();
    }

    template <typename Block>
    OUTRIDER_BODY void turn(const Block& block, T* own, const T* cos) const {
        const std::int64_t half = rotated / 2;
        const T* sin = cos + head_dim;
        for (std::int64_t i = block.thread(); i < (heads + kv_heads) * half; i += block.threads()) {
            T* head = own + i / half * head_dim;
            const std::int64_t j = i % half, k = j + half;
            const float a = static_cast<float>(head[j]), b = static_cast<float>(head[k]);
            head[j] = T(a * static_cast<float>(cos[j]) + b * static_cast<float>(sin[j]));
            head[k] = T(b * static_cast<float>(cos[k]) + a * static_cast<float>(sin[k]));
        }
    }
};

}  // namespace outrider::cuda
