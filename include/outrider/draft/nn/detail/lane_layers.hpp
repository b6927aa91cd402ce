// Decoder layers of drafters on devices: keys and values of all sequences in one tensor, and one copy of numbers a
// round.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <outrider/draft/nn/detail/layers.hpp>

namespace outrider::detail {

/// The whole numbers of one round, in one copy to the device that waits for nothing.
class RoundNumbers {
public:
    struct Part {
        std::int64_t begin = 0, count = 0;
    };

    Part add(std::span<const std::int64_t> numbers);
    /// An even number of floats, two in the place of a number.
    Part add(std::span<const float> numbers);
    [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(numbers_.size()); }
    /// Into `block`, which is made [size()] on the device where it is undefined.
    void send(at::Device device, at::Tensor& block);
    /// A part [count] int64 on the device, after `send`.
    [[nodiscard]] at::Tensor operator[](Part part) const { return sent_.narrow(0, part.begin, part.count); }

private:
    std::vector<std::int64_t> numbers_;
    at::Tensor sent_;
};

/// Rows that rounds are filled up to, so that few numbers of rows are met: none, or a power of two from 4 on; above 256
/// a multiple of 64.
[[nodiscard]] constexpr std::int64_t filled_rows(std::int64_t rows) {
    if (rows > 256) return (rows + 63) / 64 * 64;
    std::int64_t up = rows == 0 ? 0 : 4;
    while (up < rows) up *= 2;
    return up;
}

/// Which rows a round has, on the host: first `context` rows that the layers remember, then `frames` rows of each
/// sequence, which go through the layers.
struct LanePlan {
    std::vector<std::int64_t> slot, position;           ///< of all rows: where keys and values go, and the angle
    std::vector<std::int64_t> lane, limit;              ///< of each sequence: its frames see positions below `limit`
    std::int64_t context = 0, frames = 0, longest = 0;  ///< longest: positions that frames look at, see looked_at
};

/// Positions lie in lanes, one a sequence; lane 0 belongs to nobody. All lanes are as long as the longest sequence
/// needs; they grow by doubling, as far as `most_bytes` for all of them allow. What a frame leaves in its lane is
/// overwritten by the rows that come next.
class LaneLayers {
public:
    /// `weights` as files have them, on the device and of the type of `options`.
    LaneLayers(const LayerSizes& sizes, std::span<const LayerWeights> weights, const at::TensorOptions& options,
               std::int64_t most_bytes, bool kernels = true);

    /// 0: there is no memory for another one.
    [[nodiscard]] std::int64_t take_lane();
    void give_lane(std::int64_t lane) { free_.push_back(lane); }
    /// Room for so many positions in every lane; call before `slot`. False: there is no memory for them.
    [[nodiscard]] bool reserve(std::int64_t positions);
    /// Changes whenever lanes have moved.
    [[nodiscard]] std::int64_t generation() const { return generation_; }
    /// How many positions rounds look at that need `longest`, in eight steps an octave.
    [[nodiscard]] std::int64_t looked_at(std::int64_t longest) const;
    [[nodiscard]] std::int64_t slot(std::int64_t lane, std::int64_t position) const {
        return lane * capacity_ + position;
    }

    /// What the layers of one round share.
    struct Round {
        at::Tensor slot, lane;  ///< [rows], [S] int64
        at::Tensor position;    ///< [rows] int64; with kernels
        at::Tensor turns;       ///< [rows, 1, head_dim / 2] complex numbers of length 1; without kernels
        at::Tensor bias;        ///< [S, 1, 1, L] 0, or -infinity where a frame does not look
        std::int64_t only = 0;  ///< the lane where S = 1
        std::int64_t context = 0, frames = 0, sequences = 0, longest = 0;
    };
    struct Parts {
        RoundNumbers::Part slot, lane, window;
        RoundNumbers::Part turn;  ///< positions, or without kernels the turns of all rows
    };
    [[nodiscard]] Parts add(const LanePlan& plan, RoundNumbers& numbers) const;
    [[nodiscard]] Round begin(const LanePlan& plan, const Parts& parts, const RoundNumbers& numbers) const;

    /// `rows` [context + S frames, H]; the last of them, x [S frames, H], go through the layer, in place (x may be a
    /// view of them).
    void run(std::size_t layer, const at::Tensor& rows, at::Tensor& x, const Round& round);
    /// Only remembers.
    void remember(std::size_t layer, const at::Tensor& context, const Round& round) {
        (void)project(layer, context, round);
    }
    [[nodiscard]] std::size_t size() const { return weights_.size(); }

private:
    [[nodiscard]] bool fits(std::int64_t lanes, std::int64_t capacity) const;
    at::Tensor project(std::size_t layer, const at::Tensor& rows, const Round& round);
    [[nodiscard]] at::Tensor attend(std::size_t layer, const at::Tensor& heads, const Round& round) const;
    [[nodiscard]] at::Tensor in_pairs(const at::Tensor& qkv) const;
    void grow(std::int64_t lanes, std::int64_t capacity);

    LayerSizes sizes_;
    bool kernels_;                       ///< those of device_layer.hpp
    std::vector<LayerWeights> weights_;  // queries, keys and heads in orders of their own: see in_pairs, attend
    at::TensorOptions options_;
    at::Tensor store_;     // [layers, lanes, capacity, 2 kv_heads, head_dim] keys, then values
    at::Tensor rotation_;  // [capacity, 2, 1, head_dim] for kernels; else cosine and sine of each pair on the host,
                           // [capacity, head_dim / 2, 2] f32
    at::Tensor steps_;  // [2 capacity] 0, then -infinity: from capacity - n on it is the bias of who sees n positions
    std::int64_t most_bytes_, lanes_ = 0, capacity_ = 0, generation_ = 0;
    std::vector<std::int64_t> free_;
};

/// A sequence's lane, as what a drafter keeps of a sequence; without layers none is taken.
template <typename Cache>
struct LaneCache final : Cache {
    explicit LaneCache(std::shared_ptr<LaneLayers> of)
        : layers(std::move(of)), lane(layers ? layers->take_lane() : 0) {}
    ~LaneCache() override { give_back(); }
    LaneCache(const LaneCache&) = delete;
    LaneCache& operator=(const LaneCache&) = delete;
    void give_back() {
        if (lane != 0) layers->give_lane(lane);
        lane = 0;
    }

    std::shared_ptr<LaneLayers> layers;
    std::int64_t lane;  ///< 0: none
};

/// x / sqrt(mean(x^2) + eps) * weight over the last dimension, as one operation where the device has one.
[[nodiscard]] at::Tensor fused_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace outrider::detail

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/nn/detail/lane_layers-inl.hpp>
#endif
