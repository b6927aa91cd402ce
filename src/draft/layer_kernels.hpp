// One decoder layer over committed rows on the CPU: packed 8-bit matrices and plain loops, all rows of a round in one
// run of the thread team. The kernels' body of layer_context and layer_rows.
#pragma once

#include <cstdint>
#include <outrider/draft/network_parts.hpp>
#include <outrider/tensor/attention.hpp>
#include <outrider/tensor/packed_linear.hpp>
#include <outrider/tensor/thread_team.hpp>
#include <span>
#include <vector>

namespace outrider {

/// The tensor's values as float32 on the CPU.
[[nodiscard]] std::vector<float> floats_of(const at::Tensor& tensor);
[[nodiscard]] PackedLinear pack_int8(const at::Tensor& weight, ThreadTeam& team);

/// Keys and values of one sequence, slot = position: [capacity][kv_heads * head_dim] each.
struct LayerSlots {
    std::vector<float> keys, values;

    void reserve(std::int64_t slots, std::int64_t width) {
        const auto wanted = static_cast<std::size_t>(slots * width);
        if (wanted <= keys.size()) return;
        keys.resize(2 * wanted), values.resize(2 * wanted);
    }
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
    LayerKernels(const LayerSizes& sizes, const LayerWeights& weights, ThreadTeam& team);

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
