#include "kernels/attention.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include <outrider/core/error.hpp>

#include "half.hpp"
#include "kernel_table.hpp"

namespace outrider {
namespace {

using kernels::kScoreQueries;

const void* advance(CacheFormat format, const void* elements, std::int64_t count) {
    return static_cast<const std::byte*>(elements) + count * element_bytes(format);
}

std::int64_t whole_panels(std::int64_t positions) { return (positions + kKeyPanel - 1) / kKeyPanel * kKeyPanel; }

// Most scores of a query: whole panels around a run of slots that may begin anywhere in one.
std::int64_t most_scores(std::int64_t positions) { return whole_panels(positions) + 2 * kKeyPanel; }

// What a row's query takes, in positions: those it sees, and what every query takes.
std::int64_t cost_of(const AttentionRow& row) {
    constexpr std::int64_t kQuery = 32;
    return row.positions() + kQuery;
}

// Neighbouring rows of one cache.
struct Segment {
    std::span<const AttentionRow> rows;
    std::int64_t begin = 0;      // the first one's number
    std::int64_t positions = 0;  // the sum of what they see
};

Segment next_segment(std::span<const AttentionRow> rows, std::size_t begin) {
    const CacheView& cache = rows[begin].cache;
    std::size_t end = begin;
    std::int64_t positions = 0;
    for (; end < rows.size() && rows[end].cache.keys == cache.keys; ++end) positions += rows[end].positions();
    return {rows.subspan(begin, end - begin), static_cast<std::int64_t>(begin), positions};
}

// Takes some queries of one KV head of a segment at a time. Query i is head i % group of the segment's row i / group.
class Attention {
public:
    Attention(const AttentionShape& shape, const float* q, std::int64_t ldq, float* out, std::int64_t ldo,
              std::int64_t positions, float* scratch, const PackedRows::Parts* parts)
        : shape_(shape),
          table_(kernels::active_table()),
          group_(shape.heads / shape.kv_heads),
          room_(most_scores(positions)),
          stride_(room_ + kKeyPanel),
          q_(q),
          out_(out),
          parts_(parts),
          ldq_(ldq),
          ldo_(ldo) {
        packed_q_ = scratch, scores_ = packed_q_ + kScoreQueries * shape.head_dim;
        tail_ = scores_ + kScoreQueries * stride_;
        joined_ = new (tail_ + kScoreQueries * kKeyPanel) std::int32_t[static_cast<std::size_t>(positions)];
    }

    static std::int64_t scratch(const AttentionShape& shape, std::int64_t positions) {
        return kScoreQueries * (shape.head_dim + most_scores(positions) + 2 * kKeyPanel) + positions;
    }

    // The queries begin to end - 1, in even parts.
    // Keys that are read next, if any: of another KV head or another cache.
    void run(const Segment& segment, std::int64_t kv, std::int64_t begin, std::int64_t end, const void* next_keys) {
        segment_ = segment, kv_ = kv, next_keys_ = next_keys;
        const CacheView& cache = segment.rows[0].cache;
        keys_ = advance(shape_.format, cache.keys, kv * cache.head_stride);
        values_ = advance(shape_.format, cache.values, kv * cache.head_stride);
        while (begin < end) {
            const std::int64_t parts = (end - begin + kScoreQueries - 1) / kScoreQueries;
            take(begin, begin + (end - begin) / parts);
            score();
            soften();
            mix();
            if (parts_ != nullptr) pack();
            begin += count_;
        }
    }

private:
    const AttentionRow& row(std::int64_t i) const {
        return segment_.rows[static_cast<std::size_t>((begin_ + i) / group_)];
    }

    // Where the scores of query i begin.
    float* scores(std::int64_t i) const {
        const std::int64_t skipped = row(i).committed > 0 ? row(i).first - first_panel_ * kKeyPanel : 0;
        return scores_ + i * stride_ + skipped;
    }

    // Queries begin to end - 1, or as many of them as see neighbouring slots: all that a row sees must fit its scores.
    void take(std::int64_t begin, std::int64_t end) {
        begin_ = begin, count_ = 0, first_panel_ = last_panel_ = 0;
        std::int64_t low = 0, high = 0, behind = 0;  // slots of the runs; most positions behind a run
        for (; begin_ + count_ < end; ++count_) {
            const AttentionRow& next = row(count_);
            behind = std::max(behind, static_cast<std::int64_t>(next.slots.size()));
            if (next.committed > 0) {
                const std::int64_t from = high == 0 ? next.first : std::min(low, next.first);
                const std::int64_t to = std::max(high, next.first + next.committed);
                const std::int64_t start = from / kKeyPanel, stop = (to + kKeyPanel - 1) / kKeyPanel;
                if (count_ > 0 && (stop - start) * kKeyPanel + behind > room_) break;
                low = from, high = to, first_panel_ = start, last_panel_ = stop;
            } else if (count_ > 0 && (last_panel_ - first_panel_) * kKeyPanel + behind > room_) {
                break;
            }
            pack_query(count_);
        }
        run_end_ = high;
    }

    const float* query(std::int64_t i) const { return q_ + offset(i, ldq_); }
    float* output(std::int64_t i) const { return out_ + offset(i, ldo_); }
    std::int64_t offset(std::int64_t i, std::int64_t stride) const {
        const std::int64_t at = begin_ + i;
        return (segment_.begin + at / group_) * stride + (kv_ * group_ + at % group_) * shape_.head_dim;
    }

    // [head_dim][kScoreQueries], scaled.
    void pack_query(std::int64_t i) {
        const float* from = query(i);
        for (std::int64_t d = 0; d < shape_.head_dim; ++d) packed_q_[d * kScoreQueries + i] = from[d] * shape_.scale;
    }

    // Scores of all queries over panels first to last - 1.
    void score_panels(std::int64_t first, std::int64_t last, float* scores, std::int64_t stride) {
        kernels::ScoreArgs args{.format = shape_.format,
                                .panels = last - first,
                                .head_dim = shape_.head_dim,
                                .q = packed_q_,
                                .queries = static_cast<int>(count_),
                                .scores = scores,
                                .stride = stride};
        const std::int64_t panel_size = kKeyPanel * shape_.head_dim;
        args.keys = advance(shape_.format, keys_, first * panel_size);
        args.then = {advance(shape_.format, keys_, last * panel_size),
                     advance(shape_.format, values_, row(0).first * segment_.rows[0].cache.slot_stride)};
        table_.score_panels(args);
    }

    // The scores of each query in text order: the run's as they lie, then those of single slots.
    void score() {
        score_panels(first_panel_, last_panel_, scores_, stride_);
        std::int64_t low = -1, high = -1;  // single slots
        for (std::int64_t i = 0; i < count_; ++i)
            for (const std::int32_t slot : row(i).slots) {
                low = low < 0 ? slot : std::min<std::int64_t>(low, slot);
                high = std::max<std::int64_t>(high, slot);
            }
        for (std::int64_t panel = low / kKeyPanel; low >= 0 && panel <= high / kKeyPanel; ++panel) {
            const auto inside = [&](std::int32_t slot) { return slot / kKeyPanel == panel; };
            bool used = false;
            for (std::int64_t i = 0; i < count_ && !used; ++i)
                used = std::any_of(row(i).slots.begin(), row(i).slots.end(), inside);
            if (!used) continue;
            score_panels(panel, panel + 1, tail_, kKeyPanel);
            for (std::int64_t i = 0; i < count_; ++i) {
                float* to = scores(i) + row(i).committed;
                for (const std::int32_t slot : row(i).slots) {
                    if (inside(slot)) *to = tail_[i * kKeyPanel + slot % kKeyPanel];
                    ++to;
                }
            }
        }
    }

    // Scores become exponentials. Those that fill up the last vector become 0 and change no sum.
    void soften() {
        for (std::int64_t i = 0; i < count_; ++i) {
            const std::int64_t positions = row(i).positions(), padded = whole_panels(positions);
            if (shape_.cap > 0) table_.soft_cap_row(scores(i), positions, shape_.cap);
            std::fill(scores(i) + positions, scores(i) + padded, -std::numeric_limits<float>::infinity());
            factors_[i] = 1.0F / table_.exponentials(scores(i), padded);
        }
    }

    // What all rows see first, together; then what each sees alone. All but a row's last part are of whole pairs of
    // positions.
    void mix() {
        for (std::int64_t i = 0; i < count_; ++i) outputs_[i] = output(i);
        std::int64_t common = row(0).committed;
        bool same_start = true, all_done = true;
        for (std::int64_t i = 0; i < count_; ++i) {
            common = std::min(common, row(i).committed);
            same_start = same_start && row(i).first == row(0).first;
        }
        if (!same_start) common = 0;
        for (std::int64_t i = 0; i < count_; ++i) all_done = all_done && row(i).positions() == common;
        if (!all_done) common -= common % 2;
        if (common > 0) mix_run(0, count_, 0, common, all_done);
        if (all_done) return;
        for (std::int64_t i = 0, next = 0; i < count_; i = next) {
            next = std::min(count_, ((begin_ + i) / group_ + 1) * group_ - begin_);  // the row's last query
            const std::int64_t all = row(i).positions();
            std::int64_t run = row(i).committed;
            if (all > run) run -= run % 2;
            if (run > common || all == common) mix_run(i, next, common, run, all == run);
            if (all > run) mix_behind(i, next, run);
        }
    }

    void pack() const {
        const std::int64_t width = shape_.heads * shape_.head_dim;
        for (std::int64_t i = 0; i < count_; ++i) {
            const std::int64_t row = segment_.begin + (begin_ + i) / group_;
            parts_->pack(row, offset(i, width) - row * width, shape_.head_dim, outputs_[i]);
        }
    }

    // Queries i to end - 1, positions from to to - 1 of the run.
    void mix_run(std::int64_t i, std::int64_t end, std::int64_t from, std::int64_t to, bool finish) {
        mix_some(i, end, from, to - from, nullptr, finish);
    }

    // All from position `from` on, at most one of which is the run's.
    void mix_behind(std::int64_t i, std::int64_t end, std::int64_t from) {
        const AttentionRow& seen = row(i);
        const std::int32_t* slots = seen.slots.data();
        if (from < seen.committed) {
            joined_[0] = static_cast<std::int32_t>(seen.first + from);
            std::copy(seen.slots.begin(), seen.slots.end(), joined_ + 1);
            slots = joined_;
        }
        mix_some(i, end, from, seen.positions() - from, slots, true);
    }

    void mix_some(std::int64_t i, std::int64_t end, std::int64_t from, std::int64_t positions,
                  const std::int32_t* slots, bool finish) {
        const AttentionRow& seen = row(i);
        table_.mix_values({.format = shape_.format,
                           .values = values_,
                           .slot_stride = seen.cache.slot_stride,
                           .head_dim = shape_.head_dim,
                           .first = seen.first + from,
                           .slots = slots,
                           .positions = positions,
                           .weights = scores(i) + from,
                           .stride = stride_,
                           .queries = static_cast<int>(end - i),
                           .out = outputs_ + i,
                           .resume = from > 0,
                           .factors = finish ? factors_ + i : nullptr,
                           .then = {advance(shape_.format, values_, run_end_ * seen.cache.slot_stride), next_keys_}});
    }

    AttentionShape shape_;
    const kernels::Table& table_;
    std::int64_t group_, room_, stride_;  // room_: most scores of a query; stride_: with what fills up its last vector
    const float* q_;
    float* out_;
    const PackedRows::Parts* parts_;
    std::int64_t ldq_, ldo_;
    float *packed_q_, *scores_, *tail_;  // parts of the scratch memory
    std::int32_t* joined_;               // slots
    Segment segment_;
    std::int64_t kv_ = 0, begin_ = 0, count_ = 0;  // the queries at hand
    std::int64_t first_panel_ = 0, last_panel_ = 0, run_end_ = 0;
    const void *keys_ = nullptr, *values_ = nullptr, *next_keys_ = nullptr;
    float factors_[kScoreQueries] = {};
    float* outputs_[kScoreQueries] = {};
};

}  // namespace

CacheFormat narrow_format() { return kernels::active_table().narrow; }

void to_cache(CacheFormat format, const float* x, std::int64_t n, void* elements) {
    if (format == CacheFormat::f32) {
        std::memcpy(elements, x, static_cast<std::size_t>(n) * sizeof(float));
        return;
    }
    kernels::active_table().to_halves(format, x, n, static_cast<std::uint16_t*>(elements));
}

void to_key_panels(CacheFormat format, const float* key, std::int64_t head_dim, std::int64_t slot, void* keys) {
    const auto scatter = [slot](const auto* from, std::int64_t count, auto* panel) {
        for (std::int64_t d = 0; d < count; ++d) panel[d * kKeyPanel + slot % kKeyPanel] = from[d];
    };
    const std::int64_t at = slot / kKeyPanel * head_dim * kKeyPanel;
    if (format == CacheFormat::f32) return scatter(key, head_dim, static_cast<float*>(keys) + at);
    std::uint16_t halves[64];
    for (std::int64_t d = 0; d < head_dim; d += 64) {
        const std::int64_t size = std::min<std::int64_t>(64, head_dim - d);
        kernels::active_table().to_halves(format, key + d, size, halves);
        scatter(halves, size, static_cast<std::uint16_t*>(keys) + at + d * kKeyPanel);
    }
}

std::int64_t attention_scratch(const AttentionShape& shape, std::int64_t positions) {
    return Attention::scratch(shape, positions);
}

void attend(TeamMember& member, const AttentionShape& shape, std::span<const AttentionRow> rows, const float* q,
            std::int64_t ldq, float* out, std::int64_t ldo, float* scratch, const PackedRows::Parts* parts) {
    require(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0 && shape.head_dim % 16 == 0 && shape.head_dim > 0,
            "attend: {} heads of {} over {} KV heads; expected whole groups and a head size that is a multiple of 16",
            shape.heads, shape.head_dim, shape.kv_heads);
    require(parts == nullptr || shape.head_dim % 32 == 0,
            "attend: heads of {} dimensions cannot be packed one by one; expected a multiple of 32", shape.head_dim);
    const std::int64_t group = shape.heads / shape.kv_heads;
    std::int64_t total = 0, most = 0;
    for (const AttentionRow& row : rows) {
        require(row.positions() > 0, "attend: a row sees nothing; every row sees at least itself");
        total += cost_of(row) * shape.heads;
        most = std::max(most, row.positions());
    }
    Attention work(shape, q, ldq, out, ldo, most, scratch, parts);
    // A query belongs to the member in whose share of all costs it begins; KV heads first: rows stay together.
    const auto range = member.range(total);
    std::int64_t done = 0;
    for (std::size_t r = 0; r < rows.size() && done < range.end;) {
        const Segment segment = next_segment(rows, r);
        for (std::int64_t kv = 0; kv < shape.kv_heads; ++kv) {
            std::int64_t first = 0, last = 0;  // queries that begin before the share's begin, before its end
            for (const AttentionRow& row : segment.rows) {
                const std::int64_t own = cost_of(row);
                const auto before = [&](std::int64_t cost) {
                    return std::clamp<std::int64_t>((cost - done + own - 1) / own, 0, group);
                };
                first += before(range.begin), last += before(range.end);
                done += own * group;
            }
            const void* next = kv + 1 < shape.kv_heads ? advance(shape.format, segment.rows[0].cache.keys,
                                                                 (kv + 1) * segment.rows[0].cache.head_stride)
                               : r + segment.rows.size() < rows.size() ? rows[r + segment.rows.size()].cache.keys
                                                                       : nullptr;
            if (first < last) work.run(segment, kv, first, last, next);
        }
        r += segment.rows.size();
    }
}

}  // namespace outrider
