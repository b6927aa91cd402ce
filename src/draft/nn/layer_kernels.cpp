#include "layer_kernels.hpp"

#include <algorithm>
#include <cmath>
#include "kernels/row_ops.hpp"

namespace outrider {

PackedLinear pack_as(WeightFormat format, const at::Tensor& weight, ThreadTeam& team) {
    const at::Tensor floats = cpu_floats(weight);
    return PackedLinear::pack(format, {floats.const_data_ptr<float>(), static_cast<std::size_t>(floats.numel())},
                              weight.size(0), weight.size(1), &team);
}

PackedLinear pack_rows(WeightFormat format, std::span<const TokenId> vocabulary,
                       const std::function<at::Tensor(std::span<const TokenId>)>& rows, ThreadTeam& team) {
    std::vector<PackedLinear> parts;
    for_parts(vocabulary, [&](std::size_t, std::span<const TokenId> tokens) {
        parts.push_back(pack_as(format, rows(tokens), team));
    });
    return parts.size() == 1 ? parts[0] : PackedLinear::stack(parts);
}

void LayerSlots::reserve(std::int64_t slots, std::int64_t heads, std::int64_t head_dim) {
    if (slots <= capacity) return;
    const std::int64_t wanted = (2 * slots + kKeyPanel - 1) / kKeyPanel * kKeyPanel;
    const auto grow = [&](std::vector<float>& old) {
        std::vector<float> grown(static_cast<std::size_t>(heads * wanted * head_dim));
        for (std::int64_t h = 0; h < heads; ++h)
            std::copy_n(old.data() + h * capacity * head_dim, capacity * head_dim,
                        grown.data() + h * wanted * head_dim);
        old = std::move(grown);
    };
    grow(keys), grow(values);
    capacity = wanted;
}

LayerKernels::LayerKernels(const LayerSizes& sizes, const LayerWeights& weights, ThreadTeam& team, WeightFormat format)
    : sizes_(sizes),
      H_(weights.attn_norm.size(0)),
      N_(sizes.heads * sizes.head_dim),
      K_(sizes.kv_heads * sizes.head_dim),
      I_(weights.down.size(1)),
      attn_norm_(floats_of(weights.attn_norm)),
      mlp_norm_(floats_of(weights.mlp_norm)),
      shape_{CacheFormat::f32, sizes.heads, sizes.kv_heads, sizes.head_dim,
             1.0F / std::sqrt(static_cast<float>(sizes.head_dim))},
      qkv_(pack_as(format, weights.qkv, team)),
      kv_(pack_as(format, weights.qkv.slice(0, N_), team)),
      attn_out_(pack_as(format, weights.attn_out, team)),
      gate_up_(pack_as(format, weights.gate_up, team)),
      down_(pack_as(format, weights.down, team)),
      scratch_(static_cast<std::size_t>(team.size())) {
    const std::int64_t half = sizes_.head_dim / 2;
    for (std::int64_t i = 0; i < half; ++i)
        rates_.push_back(std::exp(-std::log(sizes_.rope_theta) * static_cast<double>(i) / static_cast<double>(half)));
}

void LayerKernels::prepare(std::span<const LayerRow> context, std::span<const LayerRow> rows) {
    context_ = context, rows_ = rows;
    const auto grow = [](std::vector<float>& v, std::int64_t n) {
        if (v.size() < static_cast<std::size_t>(n)) v.resize(static_cast<std::size_t>(n));
    };
    const std::int64_t C = std::ssize(context), A = std::ssize(rows);
    grow(new_kv_, C * 2 * K_), grow(qkv_out_, A * (N_ + 2 * K_)), grow(mixed_, A * N_), grow(inner_, A * 2 * I_);
    grow(angles_, std::max(C, A) * sizes_.head_dim);
    // All slots first: growing them moves what the attention rows point at.
    for (const LayerRow& row : context) row.slots->reserve(row.position + 1, sizes_.kv_heads, sizes_.head_dim);
    for (const LayerRow& row : rows)
        row.slots->reserve(std::max(row.position + 1, row.visible), sizes_.kv_heads, sizes_.head_dim);
    std::int64_t longest = 0;
    attention_.clear();
    for (const LayerRow& row : rows) {
        longest = std::max(longest, row.visible);
        attention_.push_back(
            {{row.slots->keys.data(), row.slots->values.data(), sizes_.head_dim, row.slots->capacity * sizes_.head_dim},
             row.visible,
             {}});
    }
    for (std::vector<float>& scratch : scratch_) grow(scratch, attention_scratch(shape_, longest));
}

/// Turns `count` heads by a position; its cos and sin [head_dim / 2] into the member's own place.
void LayerKernels::turn(float* heads, std::int64_t count, std::int64_t position, float* angles) const {
    const std::int64_t half = sizes_.head_dim / 2;
    for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) * rates_[static_cast<std::size_t>(i)];
        angles[i] = static_cast<float>(std::cos(angle)), angles[half + i] = static_cast<float>(std::sin(angle));
    }
    rotate_heads(heads, count, sizes_.head_dim, angles, angles + half);
}

/// A row's key and value [kv_heads, head_dim] each into its slot.
void LayerKernels::store(const LayerRow& row, const float* key, const float* value) const {
    const std::int64_t d = sizes_.head_dim, head_stride = row.slots->capacity * d;
    for (std::int64_t h = 0; h < sizes_.kv_heads; ++h) {
        to_key_panels(shape_.format, key + h * d, d, row.position, row.slots->keys.data() + h * head_stride);
        std::copy_n(value + h * d, d, row.slots->values.data() + h * head_stride + row.position * d);
    }
}

void LayerKernels::take_up(TeamMember& member, const float* x) {
    if (context_.empty()) return;
    const std::int64_t C = std::ssize(context_);
    member.barrier();
    packed_.assign_rms_norm(member, x, C, H_, H_, attn_norm_.data(), static_cast<float>(sizes_.norm_eps),
                            qkv_.format());
    member.barrier();
    kv_.multiply(member, packed_, new_kv_.data(), 2 * K_);
    member.barrier();
    const auto mine = member.range(C);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const LayerRow& row = context_[static_cast<std::size_t>(i)];
        float* kv = new_kv_.data() + i * 2 * K_;
        turn(kv, sizes_.kv_heads, row.position, angles_.data() + i * sizes_.head_dim);
        store(row, kv, kv + K_);
    }
}

void LayerKernels::run(TeamMember& member, float* x) {
    const std::int64_t A = std::ssize(rows_), W = N_ + 2 * K_;
    const auto eps = static_cast<float>(sizes_.norm_eps);
    member.barrier();
    packed_.assign_rms_norm(member, x, A, H_, H_, attn_norm_.data(), eps, qkv_.format());
    member.barrier();
    qkv_.multiply(member, packed_, qkv_out_.data(), W);
    member.barrier();
    const auto mine = member.range(A);
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
        const LayerRow& at = rows_[static_cast<std::size_t>(i)];
        float* row = qkv_out_.data() + i * W;
        turn(row, sizes_.heads + sizes_.kv_heads, at.position, angles_.data() + i * sizes_.head_dim);
        store(at, row + N_, row + N_ + K_);
    }
    member.barrier();
    attend(member, shape_, attention_, qkv_out_.data(), W, mixed_.data(), N_,
           scratch_[static_cast<std::size_t>(member.index())].data());
    member.barrier();
    packed_.assign(member, mixed_.data(), A, N_, N_, qkv_.format());
    member.barrier();
    attn_out_.multiply(member, packed_, x, H_, Store::add);
    member.barrier();
    packed_.assign_rms_norm(member, x, A, H_, H_, mlp_norm_.data(), eps, qkv_.format());
    member.barrier();
    gate_up_.multiply(member, packed_, inner_.data(), 2 * I_);
    member.barrier();
    packed_.assign_silu_gate(member, inner_.data(), A, I_, 2 * I_, qkv_.format());
    member.barrier();
    down_.multiply(member, packed_, x, H_, Store::add);
    member.barrier();
}

}  // namespace outrider
