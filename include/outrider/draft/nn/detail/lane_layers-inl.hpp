// Bodies of lane_layers.hpp.
#pragma once

#include <outrider/draft/nn/detail/lane_layers.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>

#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/aten.hpp>
#include <outrider/draft/nn/detail/device_layer.hpp>
#include <outrider/draft/nn/detail/device_products.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider::detail {

OUTRIDER_INLINE RoundNumbers::Part RoundNumbers::add(std::span<const std::int64_t> numbers) {
    const auto begin = std::ssize(numbers_);
    numbers_.insert(numbers_.end(), numbers.begin(), numbers.end());
    return {begin, std::ssize(numbers)};
}

OUTRIDER_INLINE RoundNumbers::Part RoundNumbers::add(std::span<const float> numbers) {
    const auto begin = std::ssize(numbers_), count = std::ssize(numbers) / 2;
    numbers_.resize(static_cast<std::size_t>(begin + count));
    std::memcpy(numbers_.data() + begin, numbers.data(), numbers.size_bytes());
    return {begin, count};
}

OUTRIDER_INLINE void RoundNumbers::send(at::Device device, at::Tensor& block) {
    const auto longs = at::TensorOptions().dtype(at::kLong);
    if (!block.defined()) block = aten::empty({size()}, longs.device(device));
    OUTRIDER_ASSERT(block.size(0) == size());
    const at::Tensor staged = aten::empty({size()}, longs.pinned_memory(!device.is_cpu()));
    std::copy(numbers_.begin(), numbers_.end(), staged.mutable_data_ptr<std::int64_t>());
    block.copy_(staged, true);
    sent_ = block;
}

OUTRIDER_INLINE at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
    return aten::fused_rms_norm(x, {x.size(-1)}, weight, eps);
}

OUTRIDER_INLINE LaneLayers::LaneLayers(const LayerSizes& sizes, std::span<const LayerWeights> weights,
                                       const at::TensorOptions& options, std::int64_t most_bytes, bool kernels)
    : sizes_(sizes),
      kernels_(kernels && has_layer_kernels(options.device())),
      weights_(weights.begin(), weights.end()),
      options_(options),
      most_bytes_(most_bytes) {
    const std::int64_t D = sizes.head_dim, K = sizes.kv_heads, G = sizes.heads / K;
    for (LayerWeights& layer : weights_) {
        if (!kernels_) layer.qkv = in_pairs(layer.qkv);
        layer.attn_out = layer.attn_out.view({-1, K, G, D}).transpose(1, 2).reshape({-1, G * K * D});
    }
    grow(2, 256);
}

/// Rows of queries and keys so that the two numbers which turn together stand side by side, as a complex one. Queries
/// and keys change places alike, and their products stay.
OUTRIDER_INLINE at::Tensor LaneLayers::in_pairs(const at::Tensor& qkv) const {
    const std::int64_t D = sizes_.head_dim, turned = (sizes_.heads + sizes_.kv_heads) * D, H = qkv.size(1);
    const at::Tensor pairs = qkv.narrow(0, 0, turned).view({-1, 2, D / 2, H}).transpose(1, 2).reshape({turned, H});
    return aten::cat({pairs, qkv.slice(0, turned)});
}

OUTRIDER_INLINE std::int64_t LaneLayers::take_lane() {
    for (std::int64_t more = lanes_; free_.empty() && more > 0; more /= 2)
        if (fits(lanes_ + more, capacity_)) grow(lanes_ + more, capacity_);
    if (free_.empty()) return 0;
    const std::int64_t lane = free_.back();
    free_.pop_back();
    return lane;
}

OUTRIDER_INLINE bool LaneLayers::reserve(std::int64_t positions) {
    if (positions <= capacity_) return true;
    const std::int64_t wanted = std::max(positions, 2 * capacity_);
    if (!fits(lanes_, positions)) return false;
    grow(lanes_, fits(lanes_, wanted) ? wanted : positions);
    return true;
}

/// While lanes grow, the old ones are there as well.
OUTRIDER_INLINE bool LaneLayers::fits(std::int64_t lanes, std::int64_t capacity) const {
    const std::int64_t position = std::ssize(weights_) * 2 * sizes_.kv_heads * sizes_.head_dim *
                                  static_cast<std::int64_t>(options_.dtype().itemsize());
    return (lanes * ((capacity + 63) / 64 * 64) + lanes_ * capacity_) * position <= most_bytes_;
}

OUTRIDER_INLINE std::int64_t LaneLayers::looked_at(std::int64_t longest) const {
    std::int64_t step = 64;
    while (16 * step < longest) step *= 2;
    return std::min(capacity_, (longest + step - 1) / step * step);
}

/// Cleared: what is masked must still be a number.
OUTRIDER_INLINE void LaneLayers::grow(std::int64_t lanes, std::int64_t capacity) {
    const std::int64_t D = sizes_.head_dim, half = D / 2, K = sizes_.kv_heads;
    capacity = (capacity + 63) / 64 * 64;
    const at::Tensor store = aten::zeros({std::ssize(weights_), lanes, capacity, 2 * K, D}, options_);
    if (store_.defined()) store.narrow(1, 0, lanes_).narrow(2, 0, capacity_).copy_(store_);
    store_ = store;
    if (capacity > capacity_) {  // on the host, in doubles: angles of late positions are large
        const at::Tensor place = aten::arange(half, at::kDouble) / static_cast<double>(half);
        const at::Tensor angle = aten::arange(capacity, at::kDouble).unsqueeze(1) *
                                 (place * -std::log(sizes_.rope_theta)).exp().unsqueeze(0);
        const at::Tensor cos = angle.cos(), sin = angle.sin();
        if (kernels_)
            rotation_ = aten::stack({aten::cat({cos, cos}, 1), aten::cat({sin.neg(), sin}, 1)}, 1)
                            .unsqueeze(2)
                            .to(options_.device(), options_.dtype().toScalarType());
        else
            rotation_ = aten::stack({cos, sin}, 2).to(at::kFloat);
        steps_ = aten::full({2 * capacity}, -INFINITY, options_);
        steps_.narrow(0, 0, capacity).zero_();
    }
    for (std::int64_t lane = lanes - 1; lane >= std::max<std::int64_t>(lanes_, 1); --lane) free_.push_back(lane);
    lanes_ = lanes, capacity_ = capacity, ++generation_;
}

OUTRIDER_INLINE LaneLayers::Parts LaneLayers::add(const LanePlan& plan, RoundNumbers& numbers) const {
    std::vector<std::int64_t> window;
    for (const std::int64_t limit : plan.limit) window.push_back(capacity_ - limit);
    Parts parts{numbers.add(plan.slot), numbers.add(plan.lane), numbers.add(window), {}};
    if (kernels_) {
        parts.turn = numbers.add(plan.position);
        return parts;
    }
    const auto width = static_cast<std::size_t>(sizes_.head_dim);
    const float* all = rotation_.const_data_ptr<float>();
    std::vector<float> turns;
    turns.reserve(plan.position.size() * width);
    for (const std::int64_t position : plan.position) {
        const float* own = all + static_cast<std::size_t>(position) * width;
        turns.insert(turns.end(), own, own + width);
    }
    parts.turn = numbers.add(turns);
    return parts;
}

OUTRIDER_INLINE LaneLayers::Round LaneLayers::begin(const LanePlan& plan, const Parts& parts,
                                                    const RoundNumbers& numbers) const {
    Round round;
    round.slot = numbers[parts.slot], round.lane = numbers[parts.lane];
    round.only = plan.lane.empty() ? 0 : plan.lane[0];
    round.context = plan.context, round.frames = plan.frames, round.sequences = std::ssize(plan.lane);
    round.longest = plan.longest;
    if (kernels_)
        round.position = numbers[parts.turn];
    else
        round.turns = numbers[parts.turn].view(at::kComplexFloat).view({-1, 1, sizes_.head_dim / 2});
    if (round.frames == 0) return round;
    const at::Tensor windows = steps_.as_strided({capacity_ + 1, round.longest}, {1, 1});
    round.bias = windows.index_select(0, numbers[parts.window]).view({round.sequences, 1, 1, round.longest});
    return round;
}

/// Keys and values of all rows go to their slots. Returns [rows, heads + 2 kv_heads, head_dim], turned.
OUTRIDER_INLINE at::Tensor LaneLayers::project(std::size_t layer, const at::Tensor& rows, const Round& round) {
    const LayerWeights& own = weights_[layer];
    const std::int64_t D = sizes_.head_dim, K = sizes_.kv_heads, N = sizes_.heads;
    const at::Tensor normed = fused_rms_norm(rows, own.attn_norm, sizes_.norm_eps);
    at::Tensor store = store_.select(0, static_cast<std::int64_t>(layer)).view({-1, 2 * K, D});
    if (kernels_) {
        const at::Tensor heads = aten::mm(normed, own.qkv.t()).view({-1, N + 2 * K, D});
        turn_and_store(heads, store, rotation_, round.position, round.slot);
        return heads;
    }
    const at::Tensor heads = product_in_f32(normed, own.qkv).view({-1, N + 2 * K, D});
    heads.narrow(1, 0, N + K).view(at::kComplexFloat).mul_(round.turns);
    const at::Tensor typed = heads.to(options_.dtype().toScalarType());
    store.index_copy_(0, round.slot, typed.narrow(1, N, 2 * K));
    return typed;
}

/// Of the frames' rows: [S frames, heads head_dim]. Queries of one key head stand together, frame by frame, so that
/// what attention makes lies as it is wanted, heads in the order of `attn_out` here: every key head's first, then the
/// second.
OUTRIDER_INLINE at::Tensor LaneLayers::attend(std::size_t layer, const at::Tensor& heads, const Round& round) const {
    const std::int64_t S = round.sequences, T = round.frames, L = round.longest, D = sizes_.head_dim,
                       K = sizes_.kv_heads, G = sizes_.heads / K;
    const at::Tensor lanes = store_.select(0, static_cast<std::int64_t>(layer));
    const at::Tensor seen =
        (S == 1 ? lanes.narrow(0, round.only, 1).narrow(1, 0, L) : lanes.narrow(1, 0, L).index_select(0, round.lane))
            .transpose(1, 2);  // [S, 2 K, L, D]
    const at::Tensor queries = heads.narrow(0, round.context, S * T)
                                   .narrow(1, 0, sizes_.heads)
                                   .view({S, T, K, G, D})
                                   .transpose(1, 2)
                                   .reshape({S, K, T * G, D});
    const at::Tensor mixed = aten::scaled_dot_product_attention(queries, seen.narrow(1, 0, K), seen.narrow(1, K, K),
                                                                round.bias.expand({S, K, T * G, L}));
    return mixed.transpose(1, 2).reshape({S * T, G * K * D});
}

OUTRIDER_INLINE void LaneLayers::run(std::size_t layer, const at::Tensor& rows, at::Tensor& x, const Round& round) {
    const LayerWeights& own = weights_[layer];
    const at::Tensor heads = project(layer, rows, round);
    x.addmm_(attend(layer, heads, round), own.attn_out.t());
    const at::Tensor inner = aten::mm(fused_rms_norm(x, own.mlp_norm, sizes_.norm_eps), own.gate_up.t());
    const std::int64_t I = inner.size(1) / 2;
    if (kernels_)
        x.addmm_(silu_gate(inner), own.down.t());
    else
        x.addmm_(aten::silu(inner.narrow(1, 0, I)).mul_(inner.narrow(1, I, I)), own.down.t());
}

}  // namespace outrider::detail
