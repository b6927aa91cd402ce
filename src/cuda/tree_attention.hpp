// Attention of tree rows over keys and values that lie in slots, in splits of positions that are joined afterwards.
#pragma once

#include "block.hpp"

namespace outrider::cuda {

/// Positions of a split. Splits begin at multiples of it whatever the rows are, so that a row's sums have one order.
inline constexpr std::int64_t kSplit = 256;

/// Which positions a row sees: those of its sequence's text from `first` on, and behind `committed` the rows of its
/// tree whose bit is set.
struct SeenRows {
    const std::int64_t* place;      ///< [rows] sequence tree_rows + row in it
    const std::int64_t* lane;       ///< [sequences] row of the table
    const std::int64_t* committed;  ///< [sequences]
    const std::int64_t* count;      ///< [sequences] rows
    const std::int64_t* first;      ///< [sequences, tree_rows]
    const std::int64_t* bits;       ///< [sequences, tree_rows, words]
    const std::int64_t* table;      ///< [lanes, columns] slots by position
    std::int64_t tree_rows, words, columns;

    [[nodiscard]] OUTRIDER_BODY std::int64_t sequence(std::int64_t row) const { return place[row] / tree_rows; }
    [[nodiscard]] OUTRIDER_BODY bool sees(std::int64_t row, std::int64_t position) const {
        const std::int64_t behind = position - committed[sequence(row)];
        if (behind < 0) return position >= first[place[row]];
        return (bits[place[row] * words + behind / 64] >> (behind % 64) & 1) != 0;
    }
};

/// One block: one row, one key head, one split. Leaves for every head of the group the sum of values by exp(score -
/// top), the sum of these shares, and the top.
template <typename T>
struct TreeAttend {
    SeenRows rows;
    const T* qkv;    ///< [rows, heads + 2 kv_heads, head_dim]
    const T* store;  ///< [slots, 2 kv_heads, head_dim]
    float* partial;  ///< [rows, heads, splits, head_dim + 2]
    std::int64_t heads, kv_heads, head_dim, splits;
    float scale, cap;  ///< scores are scale q k; cap > 0: cap tanh(score / cap)

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t index) const {
        const std::int64_t split = index % splits, head = index / splits % kv_heads, row = index / splits / kv_heads;
        const std::int64_t sequence = rows.sequence(row), begin = split * kSplit, group = heads / kv_heads;
        const std::int64_t end = rows.committed[sequence] + rows.count[sequence];
        const std::int64_t count = end - begin < 0 ? 0 : end - begin < kSplit ? end - begin : kSplit;
        const std::int64_t* slots = rows.table + rows.lane[sequence] * rows.columns + begin;
        score(block, row, head, begin, count, slots);
        block.sync();
        for (std::int64_t g = 0; g < group; ++g) {
            float* shares = block.shared() + g * kSplit;
            float top = -INFINITY, sum = 0;
            for (std::int64_t p = block.thread(); p < count; p += block.threads()) top = fmaxf(top, shares[p]);
            top = block.max(top);
            for (std::int64_t p = block.thread(); p < count; p += block.threads()) {
                shares[p] = top == -INFINITY ? 0.0F : expf(shares[p] - top);
                sum += shares[p];
            }
            sum = block.sum(sum);
            block.sync();
            float* out = partial + ((row * heads + head * group + g) * splits + split) * (head_dim + 2);
            for (std::int64_t d = block.thread(); d < head_dim; d += block.threads()) {
                float mixed = 0;
                for (std::int64_t p = 0; p < count; ++p)
                    mixed += shares[p] *
                             static_cast<float>(store[(slots[p] * 2 * kv_heads + kv_heads + head) * head_dim + d]);
                out[d] = mixed;
            }
            if (block.thread() == 0) out[head_dim] = sum, out[head_dim + 1] = top;
        }
    }
    [[nodiscard]] std::int64_t shared_floats() const { return heads / kv_heads * kSplit; }

private:
    template <typename Block>
    OUTRIDER_BODY void score(const Block& block, std::int64_t row, std::int64_t head, std::int64_t begin,
                             std::int64_t count, const std::int64_t* slots) const {
        const std::int64_t group = heads / kv_heads;
        const T* queries = qkv + (row * (heads + 2 * kv_heads) + head * group) * head_dim;
        for (std::int64_t p = block.thread(); p < count; p += block.threads()) {
            const bool seen = rows.sees(row, begin + p);
            const T* key = store + (slots[p] * 2 * kv_heads + head) * head_dim;
            for (std::int64_t g = 0; g < group; ++g) {
                float sum = 0;
                for (std::int64_t d = 0; seen && d < head_dim; ++d)
                    sum += static_cast<float>(queries[g * head_dim + d]) * static_cast<float>(key[d]);
                sum *= scale;
                if (cap > 0) sum = cap * tanhf(sum / cap);
                block.shared()[g * kSplit + p] = seen ? sum : -INFINITY;
            }
        }
    }
};

/// One block: one row and head. Joins the splits in their order.
template <typename T>
struct TreeJoin {
    const float* partial;  ///< of TreeAttend
    T* out;                ///< [rows, heads, head_dim]
    std::int64_t head_dim, splits;

    template <typename Block>
    OUTRIDER_BODY void operator()(const Block& block, std::int64_t index) const {
        const float* own = partial + index * splits * (head_dim + 2);
        float top = -INFINITY, sum = 0;
        for (std::int64_t s = 0; s < splits; ++s) top = fmaxf(top, own[s * (head_dim + 2) + head_dim + 1]);
        for (std::int64_t s = 0; s < splits; ++s) {
            const float* part = own + s * (head_dim + 2);
            if (part[head_dim] > 0) sum += part[head_dim] * expf(part[head_dim + 1] - top);
        }
        for (std::int64_t d = block.thread(); d < head_dim; d += block.threads()) {
            float mixed = 0;
            for (std::int64_t s = 0; s < splits; ++s) {
                const float* part = own + s * (head_dim + 2);
                if (part[head_dim] > 0) mixed += part[d] * expf(part[head_dim + 1] - top);
            }
            out[index * head_dim + d] = T(mixed / sum);
        }
    }
    [[nodiscard]] std::int64_t shared_floats() const { return 0; }
};

}  // namespace outrider::cuda
