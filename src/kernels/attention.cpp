#include <outrider/tensor/attention.hpp>

#include <algorithm>
#include <cstring>

#include <outrider/core/error.hpp>

#include "half.hpp"
#include "kernel_table.hpp"

namespace outrider {
namespace {

constexpr std::int64_t kHeadsAtOnce = 3;

std::int64_t score_stride(std::int64_t positions) { return (positions + 15) / 16 * 16; }

const void* advance(CacheFormat format, const void* elements, std::int64_t count) {
    return static_cast<const std::byte*>(elements) + count * element_bytes(format);
}

}  // namespace

void to_cache(CacheFormat format, const float* x, std::int64_t n, void* elements) {
    if (format == CacheFormat::f32) {
        std::memcpy(elements, x, static_cast<std::size_t>(n) * sizeof(float));
        return;
    }
    kernels::active_table().to_halves(format, x, n, static_cast<std::uint16_t*>(elements));
}

std::int64_t attention_scratch(const AttentionShape&, std::int64_t positions) {
    return kHeadsAtOnce * score_stride(positions);
}

void attend(TeamMember& member, const AttentionShape& shape, std::span<const AttentionRow> rows, const float* q,
            std::int64_t ldq, float* out, std::int64_t ldo, float* scratch) {
    require(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 && shape.head_dim % 16 == 0 && shape.head_dim > 0,
            "attend: {} heads of {} over {} KV heads; expected whole groups and a head size that is a multiple of 16",
            shape.heads, shape.head_dim, shape.kv_heads);
    const std::int64_t group = shape.heads / shape.kv_heads;
    std::int64_t total = 0;
    for (const AttentionRow& row : rows) {
        require(row.positions() > 0, "attend: a row sees nothing; every row sees at least itself");
        total += row.positions() * shape.heads;
    }
    // A (row, head) belongs to the member in whose share of all positions it begins.
    const auto range = member.range(total);
    kernels::HeadArgs args;
    args.format = shape.format, args.head_dim = shape.head_dim, args.scale = shape.scale, args.scores = scratch;
    std::int64_t done = 0;
    for (std::size_t r = 0; r < rows.size() && done < range.end; ++r) {
        const AttentionRow& row = rows[r];
        args.positions = row.positions();
        const auto head_at = [&](std::int64_t cost) {
            return std::clamp<std::int64_t>((cost - done + args.positions - 1) / args.positions, 0, shape.heads);
        };
        const std::int64_t first = head_at(range.begin), last = head_at(range.end);
        args.slot_stride = row.cache.slot_stride, args.committed = row.committed, args.slots = row.slots.data();
        args.score_stride = score_stride(args.positions);
        for (std::int64_t head = first; head < last; head += args.heads) {
            const std::int64_t kv = head / group;
            args.heads = std::min(last, (kv + 1) * group) - head;
            args.keys = advance(shape.format, row.cache.keys, kv * row.cache.head_stride);
            args.values = advance(shape.format, row.cache.values, kv * row.cache.head_stride);
            args.q = q + static_cast<std::int64_t>(r) * ldq + head * shape.head_dim;
            args.out = out + static_cast<std::int64_t>(r) * ldo + head * shape.head_dim;
            kernels::active_table().attend_group(args);
        }
        done += args.positions * shape.heads;
    }
}

}  // namespace outrider
