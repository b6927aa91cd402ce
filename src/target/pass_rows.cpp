#include "pass_rows.hpp"

#include <algorithm>
#include <utility>

namespace outrider::kernel_target {

std::int64_t PassRows::lay_out(std::span<const RowSegment> segments) {
    rows_.clear(), seen_.clear(), near_.clear(), slots_.clear();
    for (const RowSegment& segment : segments) add_segment(segment);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
        seen_[i].slots = std::span(slots_).subspan(rows_[i].first_slot, rows_[i].slots);
        if (window_ > 0) near_.push_back(narrow(seen_[i], rows_[i].position - window_ + 1));
    }
    return std::ssize(rows_);
}

// A row sees a run of slots from 0 on and then single ones. A chain is all run; a tree's row continues its parent's run
// when it lies directly behind it.
void PassRows::add_segment(const RowSegment& segment) {
    KvCache& cache = *segment.cache;
    cache.reserve(static_cast<std::int64_t>(segment.tokens.size()));
    const std::vector<std::int64_t> position = row_positions(segment);
    const std::size_t begin = rows_.size();
    for (std::size_t i = 0; i < segment.tokens.size(); ++i) {
        const std::int64_t slot = cache.committed() + static_cast<std::int64_t>(i);
        PassRow row{.token = segment.tokens[i],
                    .position = position[i],
                    .cache = &cache,
                    .slot = slot,
                    .first_slot = slots_.size()};
        const NodeIndex parent = segment.parents.empty() ? static_cast<NodeIndex>(i) - 1 : segment.parents[i];
        const std::size_t above = begin + static_cast<std::size_t>(std::max(parent, 0));
        std::int64_t run = parent < 0 ? cache.committed() : seen_[above].committed;
        if (parent >= 0)
            for (std::size_t s = 0; s < rows_[above].slots; ++s) slots_.push_back(slots_[rows_[above].first_slot + s]);
        if (slots_.size() == row.first_slot && run == slot)
            ++run;
        else
            slots_.push_back(static_cast<std::int32_t>(slot));
        row.slots = slots_.size() - row.first_slot;
        seen_.push_back({.cache = view(row, 0), .committed = run});
        rows_.push_back(row);
    }
}

// Position `first` is the oldest that the row sees; slot s of its run holds position s. The run begins there, or there
// is none when the window reaches back into the tree only.
AttentionRow PassRows::narrow(AttentionRow seen, std::int64_t first) {
    if (first <= 0) return seen;
    if (first >= seen.committed) {
        seen.slots = seen.slots.subspan(static_cast<std::size_t>(first - seen.committed));
        seen.committed = 0;
    } else {
        seen.first = first;
        seen.committed -= first;
    }
    return seen;
}

// Where the row's cache has the layer.
CacheView PassRows::view(PassRow& row, std::int64_t layer) const {
    const auto [data, capacity] = row.cache->layer(layer);
    row.keys = data;
    row.head_bytes = static_cast<std::size_t>(capacity * shape_.head_dim * element_bytes(shape_.format));
    row.value_bytes = static_cast<std::size_t>(shape_.kv_heads) * row.head_bytes;
    return {.keys = data,
            .values = data + row.value_bytes,
            .slot_stride = shape_.head_dim,
            .head_stride = capacity * shape_.head_dim};
}

void PassRows::enter(TeamMember& member, std::int64_t layer) {
    const TeamMember::Range share = member.range(std::ssize(rows_));
    for (std::int64_t i = share.begin; i < share.end; ++i) {
        const auto at = static_cast<std::size_t>(i);
        seen_[at].cache = view(rows_[at], layer);
        if (!near_.empty()) near_[at].cache = seen_[at].cache;
    }
}

}  // namespace outrider::kernel_target
