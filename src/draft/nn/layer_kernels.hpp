// One decoder layer over committed rows on the CPU: packed matrices and plain loops, all rows of a round in one
// run of the thread team. The kernels' body of layer_context and layer_rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <outrider/draft/nn/detail/floats.hpp>
#include <outrider/draft/nn/detail/layers.hpp>
#include "kernels/attention.hpp"
#include "kernels/packed_linear.hpp"
#include <outrider/core/detail/thread_team.hpp>
#include <span>
#include <type_traits>
#include <vector>

namespace outrider {

[[nodiscard]] PackedLinear pack_as(WeightFormat format, const at::Tensor& weight, ThreadTeam& team);
/// Bytes held by matrices, numbers, and vectors of them.
[[nodiscard]] inline std::size_t bytes_of(const PackedLinear& matrix) { return matrix.bytes(); }
template <typename T>
[[nodiscard]] std::size_t bytes_of(const std::vector<T>& items) {
    if constexpr (std::is_trivially_copyable_v<T>) {
        return items.size() * sizeof(T);
    } else {
        std::size_t sum = 0;
        for (const T& item : items) sum += bytes_of(item);
        return sum;
    }
}
template <typename... Parts>
    requires(sizeof...(Parts) > 1)
[[nodiscard]] std::size_t bytes_of(const Parts&... parts) {
    return (bytes_of(parts) + ...);
}
/// Calls take(first, tokens) for some hundred tokens after another. What is made of a whole draft vocabulary in floats
/// is several times as large as what stays of it.
template <typename F>
void for_parts(std::span<const TokenId> vocabulary, F take) {
    constexpr std::size_t kPart = 512;  // whole panels
    for (std::size_t first = 0; first < vocabulary.size(); first += kPart)
        take(first, vocabulary.subspan(first, std::min(kPart, vocabulary.size() - first)));
}
/// rows(tokens) [tokens, in] of the draft vocabulary as one matrix.
[[nodiscard]] PackedLinear pack_rows(WeightFormat format, std::span<const TokenId> vocabulary,
                                     const std::function<at::Tensor(std::span<const TokenId>)>& rows, ThreadTeam& team);

/// Of the matrices of a drafter's decoder layer and of what leads into it. Guesses lose nothing that was measured by 4
/// bits there, and a draft that comes behind a pass over all of the target's weights reads its own from memory
/// (docs/decisions/0012-a-drafts-matrices-in-4-bits.md).
[[nodiscard]] constexpr WeightFormat layer_format(bool eight_bits) noexcept {
    return eight_bits ? WeightFormat::int8 : WeightFormat::q4_1;
}

/// Keys and values of one sequence, slot = position, as the target's cache lays them out: for each KV head keys in
/// panels [capacity / 16][head_dim][16] and values [capacity][head_dim].
struct LayerSlots {
    std::vector<float> keys, values;
    std::int64_t capacity = 0;

    /// Makes room for `slots` slots of `heads` heads of `head_dim`.
    void reserve(std::int64_t slots, std::int64_t heads, std::int64_t head_dim);
};

/// Where a row stands: its keys and values go to slot `position`, and it sees the first `visible` slots.
struct LayerRow {
    LayerSlots* slots = nullptr;
    std::int64_t position = 0;
    std::int64_t visible = 0;
};

class LayerKernels {
public:
    [[nodiscard]] static bool fit(const LayerSizes& sizes) { return sizes.head_dim % 16 == 0; }

    /// The team must live as long as this.
    LayerKernels(const LayerSizes& sizes, const LayerWeights& weights, ThreadTeam& team, WeightFormat format);

    [[nodiscard]] std::size_t bytes() const {
        return bytes_of(qkv_, kv_, attn_out_, gate_up_, down_, attn_norm_, mlp_norm_);
    }

    /// Before the team's run: slots and scratch memory for rows that only leave keys and values, and for rows that go
    /// through the layer. Both spans must live until the run is over.
    void prepare(std::span<const LayerRow> context, std::span<const LayerRow> rows);

    /// Keys and values of the context rows x [context, H] into their slots. Every member calls it; a barrier is inside
    /// before, none behind.
    void take_up(TeamMember& member, const float* x);

    /// x [rows, H] through the layer, in place. Every member calls it; a barrier is behind.
    void run(TeamMember& member, float* x);

private:
    void turn(float* heads, std::int64_t count, std::int64_t position, float* angles) const;
    void store(const LayerRow& row, const float* key, const float* value) const;

    LayerSizes sizes_;
    std::int64_t H_, N_, K_, I_;
    std::vector<float> attn_norm_, mlp_norm_;
    std::vector<double> rates_;  // [head_dim / 2] angle of one position
    AttentionShape shape_;
    PackedLinear qkv_, kv_, attn_out_, gate_up_, down_;
    PackedRows packed_;
    std::span<const LayerRow> context_, rows_;
    std::vector<AttentionRow> attention_;
    std::vector<float> new_kv_, qkv_out_, mixed_, inner_, angles_;
    std::vector<std::vector<float>> scratch_;
};

}  // namespace outrider
