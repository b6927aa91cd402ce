#include "device_inputs.hpp"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

#include "kv_pool.hpp"

namespace outrider {
namespace {

/// The next power of two from 8 on, or 1; above 256 the next multiple of 64.
std::int64_t rounded(std::int64_t n) {
    if (n <= 1) return 1;
    if (n > 256) return (n + 63) / 64 * 64;
    return std::max<std::int64_t>(8, static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n))));
}

std::int64_t power(std::int64_t n) { return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n))); }

/// Eight steps an octave, at least 64 positions each.
std::int64_t rounded_context(std::int64_t n, std::int64_t columns) {
    const std::int64_t step = std::max(KvPool::kColumnStep, power(n) / 16);
    return std::min(columns, (n + step - 1) / step * step);
}

/// Sets the bits of row r in its `words` words: itself, and its ancestors from position `oldest` on; -1: all of them,
/// which are what the row before them sees.
void mark_seen(const RowSegment& segment, const std::vector<std::int64_t>& positions, std::int64_t r,
               std::int64_t oldest, std::int64_t words, std::int64_t* own) {
    const auto parent = [&](std::int64_t row) -> std::int64_t {
        return segment.parents.empty() ? row - 1 : segment.parents[static_cast<std::size_t>(row)];
    };
    const auto mark = [&](std::int64_t row) {
        own[row / 64] |= static_cast<std::int64_t>(std::uint64_t{1} << (row % 64));
    };
    std::fill_n(own, words, 0);
    mark(r);
    if (parent(r) < 0) return;
    if (oldest < 0) {
        const std::int64_t* above = own - (r - parent(r)) * words;
        for (std::int64_t w = 0; w < words; ++w) own[w] |= above[w];
        return;
    }
    for (std::int64_t a = parent(r); a >= 0 && positions[static_cast<std::size_t>(a)] >= oldest; a = parent(a)) mark(a);
}

}  // namespace

DeviceShape device_shape(std::span<const RowSegment> segments, std::int64_t columns) {
    std::int64_t rows = 0, updates = 0, longest = 0, context = 0;
    for (const RowSegment& segment : segments) {
        const auto own = static_cast<std::int64_t>(segment.tokens.size());
        const std::int64_t end = segment.cache->committed() + own;
        rows += own;
        updates += std::max<std::int64_t>(0, end - segment.cache->pooled()->stale_from());
        longest = std::max(longest, own);
        context = std::max(context, end);
    }
    require(context <= columns, "rows of a tree reach slot {} of a sequence; a device pass has {} for each: draft less",
            context, columns);
    return {.rows = rounded(std::max(rows, (updates + 1) / 2)),
            .sequences = power(std::ssize(segments)),
            .tree_rows = rounded(longest),
            .context = rounded_context(context, columns)};
}

DeviceInputs::DeviceInputs(const DeviceShape& shape, std::int64_t kv_heads, std::int64_t group, std::int64_t vocabulary,
                           std::vector<std::int64_t> windows)
    : shape_(shape), kv_heads_(kv_heads), group_(group), vocabulary_(vocabulary), windows_(std::move(windows)) {
    const std::int64_t N = shape.rows, S = shape.sequences, SR = S * shape.tree_rows, W = std::ssize(windows_);
    const std::array<std::int64_t, kParts> sizes{N, N, N, 2 * N, 2 * N, S, S, S,      SR,
                                                 N, N, N, N,     N,     N, N, W * SR, W * SR * shape.words()};
    for (std::size_t i = 0; i < sizes.size(); ++i) begin_[i + 1] = begin_[i] + sizes[i];
}

at::Tensor DeviceInputs::part(const at::Tensor& block, Part which) const {
    const at::Tensor own = block.narrow(0, begin_[which], begin_[which + 1] - begin_[which]);
    return which == temperature || which == top_p || which == min_p ? own.view(at::kDouble) : own;
}

/// Where a sequence stands in the forward.
struct DeviceInputs::Place {
    std::int64_t sequence = 0, row = 0, update = 0;
};

// Zeros are the padding: token 0 at position 0, written to slot 0, which is nobody's; a lane that is nobody's; rows
// that see row 0 of their own sequence, so that no row sees nothing.
void DeviceInputs::fill(std::span<const RowSegment> segments, std::int64_t columns, std::int64_t* block) const {
    std::fill_n(block, size(), 0);
    for (std::int64_t i = begin_[bits]; i < begin_[bits + 1]; i += shape_.words()) block[i] = 1;
    for (std::int64_t s = 0; s < shape_.sequences; ++s) block[begin_[count] + s] = 1;
    Place place;
    for (const RowSegment& segment : segments) {
        fill_sequence(segment, place, columns, block);
        ++place.sequence;
    }
}

void DeviceInputs::fill_sequence(const RowSegment& segment, Place& place, std::int64_t columns,
                                 std::int64_t* block) const {
    PooledSlots& slots = *segment.cache->pooled();
    const std::int64_t s = place.sequence, base = segment.cache->committed();
    const auto n = static_cast<std::int64_t>(segment.tokens.size());
    block[begin_[lane] + s] = slots.lane();
    block[begin_[committed] + s] = base;
    block[begin_[count] + s] = n;
    for (std::int64_t p = std::min(slots.stale_from(), base + n); p < base + n; ++p, ++place.update) {
        block[begin_[update_at] + place.update] = slots.lane() * columns + p;
        block[begin_[update_to] + place.update] = slots.at(p);
    }
    slots.brought_up_to(base + n);
    fill_rows(segment, place, block);
}

void DeviceInputs::fill_rows(const RowSegment& segment, Place& place, std::int64_t* block) const {
    const PooledSlots& slots = *segment.cache->pooled();
    const std::int64_t begin = place.sequence * shape_.tree_rows;
    const std::vector<std::int64_t> positions = row_positions(segment);
    for (std::int64_t r = 0; r < std::ssize(positions); ++r, ++place.row) {
        const auto i = static_cast<std::size_t>(r);
        block[begin_[token] + place.row] = segment.tokens[i];
        block[begin_[position] + place.row] = positions[i];
        block[begin_[slot] + place.row] = slots.at(segment.cache->committed() + r);
        block[begin_[padded_row] + begin + r] = place.row;
        block[begin_[padded_place] + place.row] = begin + r;
        block[begin_[attended_row] + place.row] = (begin * group_ + r) * kv_heads_;
        if (segment.picks != nullptr)
            fill_pick(pick_number(*segment.picks, positions[i] + 1, vocabulary_), place.row, block);
    }
    for (std::size_t w = 0; w < windows_.size(); ++w) fill_seen(segment, w, place.sequence, positions, block);
}

void DeviceInputs::fill_pick(const PickNumber& pick, std::int64_t row, std::int64_t* block) const {
    const auto bits_of = [](double x) { return std::bit_cast<std::int64_t>(x); };
    block[begin_[pick_key] + row] = pick.key;
    block[begin_[temperature] + row] = bits_of(pick.temperature);
    block[begin_[top_k] + row] = pick.top_k;
    block[begin_[top_p] + row] = bits_of(pick.top_p);
    block[begin_[min_p] + row] = bits_of(pick.min_p);
}

void DeviceInputs::fill_seen(const RowSegment& segment, std::size_t window, std::int64_t sequence,
                             const std::vector<std::int64_t>& positions, std::int64_t* block) const {
    const std::int64_t W = shape_.words(), width = windows_[window];
    const std::int64_t begin = (static_cast<std::int64_t>(window) * shape_.sequences + sequence) * shape_.tree_rows;
    for (std::int64_t r = 0; r < std::ssize(positions); ++r) {
        const std::int64_t own = positions[static_cast<std::size_t>(r)];
        const std::int64_t oldest = width > 0 ? std::max<std::int64_t>(0, own - width + 1) : 0;
        block[begin_[first] + begin + r] = oldest;
        mark_seen(segment, positions, r, width > 0 ? oldest : -1, W, block + begin_[bits] + (begin + r) * W);
    }
}

}  // namespace outrider
