// The rows of one forward of the CPU's pass: where each one's keys and values go, and which others it sees.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/attention.hpp"
#include <outrider/core/detail/thread_team.hpp>
#include <outrider/core/types.hpp>
#include <outrider/target/detail/target_pass.hpp>

namespace outrider::kernel_target {

/// Where a row of the forward lives.
struct PassRow {
    TokenId token = 0;
    std::int64_t position = 0;
    const KvCache* cache = nullptr;
    std::byte* keys = nullptr;              // of KV head 0, slot 0 in the layer at hand
    std::int64_t slot = 0;                  // its own
    std::size_t head_bytes = 0;             // from one KV head to the next in the layer at hand
    std::size_t value_bytes = 0;            // from its keys to its values
    std::size_t first_slot = 0, slots = 0;  // its part of slots_
    float query_scale = 1;
};

class PassRows {
public:
    /// `window`: positions that a row sees in layers that have a window; 0: there are none.
    PassRows(const AttentionShape& shape, std::int64_t window) : shape_(shape), window_(window) {}

    /// Returns how many rows there are. Reserves them in their caches.
    std::int64_t lay_out(std::span<const RowSegment> segments);

    /// On to a layer's part of the caches, from the one before it: each member's share of the rows. They are laid out
    /// in the first layer's.
    void enter(TeamMember& member, std::int64_t layer);

    [[nodiscard]] PassRow& operator[](std::int64_t i) { return rows_[static_cast<std::size_t>(i)]; }
    [[nodiscard]] const PassRow& operator[](std::int64_t i) const { return rows_[static_cast<std::size_t>(i)]; }
    /// What each row sees in the layer at hand.
    [[nodiscard]] std::span<AttentionRow> seen(bool windowed) { return windowed ? near_ : seen_; }

private:
    void add_segment(const RowSegment& segment);
    [[nodiscard]] CacheView view(PassRow& row, std::int64_t layer) const;
    static AttentionRow narrow(AttentionRow seen, std::int64_t first);

    AttentionShape shape_;
    std::int64_t window_;
    std::vector<PassRow> rows_;
    std::vector<AttentionRow> seen_, near_;  // in a layer without, and with a window
    std::vector<std::int32_t> slots_;
};

}  // namespace outrider::kernel_target
