// What one forward on a device is told: everything that is not a weight, in one block and one copy.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/target/detail/target_pass.hpp>

#include "device_picks.hpp"

namespace outrider {

/// Sizes of a forward, rounded up: forwards of one shape are the same operations on the same sizes.
struct DeviceShape {
    std::int64_t rows = 0;       ///< N, of all sequences
    std::int64_t sequences = 0;  ///< S
    std::int64_t tree_rows = 0;  ///< R, of the longest one
    std::int64_t context = 0;    ///< L positions that are looked at, a multiple of 64

    /// Words of 64 bits that say which rows a row sees.
    [[nodiscard]] std::int64_t words() const { return (tree_rows + 63) / 64; }
    [[nodiscard]] auto operator<=>(const DeviceShape&) const = default;
};

/// The shape for these rows. Their caches have room for them. `columns`: of the pool's table.
[[nodiscard]] DeviceShape device_shape(std::span<const RowSegment> segments, std::int64_t columns);

/// The parts of the block, int64 each. A sequence's place in the forward is s, a row's place in its sequence r.
class DeviceInputs {
public:
    enum Part : unsigned char {
        token,         ///< [N]
        position,      ///< [N]
        slot,          ///< [N] of the pool, where keys and values go
        update_at,     ///< [2 N] cells of the pool's table, flat, that change
        update_to,     ///< [2 N] the slots that they name then
        lane,          ///< [S]
        committed,     ///< [S]
        count,         ///< [S] rows
        padded_row,    ///< [S R] which row stands at (s, r)
        padded_place,  ///< [N] the other way round: s R + r
        attended_row,  ///< [N] where a row's first head stands in what attention returns, [S, group R, kv_heads]
        pick_key,      ///< [N] PickNumbers, and the next four; doubles by their bits
        temperature,   ///< [N]
        top_k,         ///< [N]
        top_p,         ///< [N]
        min_p,         ///< [N]
        first,         ///< [windows, S R] position of the oldest token that the row sees
        bits,          ///< [windows, S R words] rows of its sequence that the row sees
        kParts,
    };

    /// `group`: heads of a key head. `windows`: those of the model's layers, each once; 0: all tokens are seen.
    DeviceInputs(const DeviceShape& shape, std::int64_t kv_heads, std::int64_t group, std::int64_t vocabulary,
                 std::vector<std::int64_t> windows);

    [[nodiscard]] std::int64_t size() const { return begin_[kParts]; }

    /// Fills the block for these rows, and marks the pool's table as brought up to them.
    void fill(std::span<const RowSegment> segments, std::int64_t columns, std::int64_t* block) const;

    /// A part of the block [size()] on the device; of doubles as such.
    [[nodiscard]] at::Tensor part(const at::Tensor& block, Part which) const;

private:
    struct Place;
    void fill_sequence(const RowSegment& segment, Place& place, std::int64_t columns, std::int64_t* block) const;
    void fill_rows(const RowSegment& segment, Place& place, std::int64_t* block) const;
    void fill_pick(const PickNumber& pick, std::int64_t row, std::int64_t* block) const;
    void fill_seen(const RowSegment& segment, std::size_t window, std::int64_t sequence,
                   const std::vector<std::int64_t>& positions, std::int64_t* block) const;

    DeviceShape shape_;
    std::int64_t kv_heads_, group_, vocabulary_;
    std::vector<std::int64_t> windows_;
    std::array<std::int64_t, kParts + 1> begin_{};
};

}  // namespace outrider
