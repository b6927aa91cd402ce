#include "kv_pool.hpp"

#include <algorithm>
#include <utility>

#include <outrider/core/error.hpp>

namespace outrider {

KvPool::KvPool(const KvCache::Shape& shape, const Limits& limits, const at::TensorOptions& options) : limits_(limits) {
    require(limits.tokens >= 1 && limits.sequences >= 1,
            "a cache for {} tokens of {} sequences; expected at least one of each", limits.tokens, limits.sequences);
    const std::int64_t columns = (limits.context + kTreeRows + kColumnStep - 1) / kColumnStep * kColumnStep;
    store_ = at::zeros({shape.layers, limits.tokens + 1, 2 * shape.kv_heads, shape.head_dim}, options);
    table_ = at::zeros({limits.sequences + 1, columns}, options.dtype(at::kLong));
    token_bytes_ = store_.nbytes() / static_cast<std::size_t>(limits.tokens + 1);
    for (std::int64_t slot = limits.tokens; slot > 0; --slot) free_.push_back(slot);
    for (std::int64_t lane = limits.sequences; lane > 0; --lane) lanes_.push_back(lane);
}

std::int64_t KvPool::take_lane() {
    require(!lanes_.empty(), ErrorKind::out_of_memory,
            "the device's cache has room for {} sequences, and all are taken; decode fewer at once (max_batch), or "
            "raise LlamaModel::Options::cache_sequences",
            limits_.sequences);
    const std::int64_t lane = lanes_.back();
    lanes_.pop_back();
    return lane;
}

void KvPool::take_slots(std::size_t count, std::vector<std::int64_t>& into) {
    require(count <= free_.size(), ErrorKind::out_of_memory,
            "the device's cache holds {} tokens of all sequences together, {} are free, {} more are needed; decode "
            "fewer or shorter sequences at once, or raise LlamaModel::Options::cache_tokens ({} bytes a token)",
            limits_.tokens, free_.size(), count, token_bytes_);
    into.insert(into.end(), free_.rbegin(), free_.rbegin() + static_cast<std::ptrdiff_t>(count));
    free_.resize(free_.size() - count);
}

void KvPool::give_slots(std::span<const std::int64_t> slots) {
    free_.insert(free_.end(), slots.rbegin(), slots.rend());
}

PooledSlots::PooledSlots(std::shared_ptr<KvPool> pool) : pool_(std::move(pool)), lane_(pool_->take_lane()) {}

PooledSlots::~PooledSlots() {
    pool_->give_slots(slots_);
    pool_->give_lane(lane_);
}

void PooledSlots::grow(std::int64_t positions) {
    const auto wanted = static_cast<std::size_t>(positions);
    if (wanted > slots_.size()) pool_->take_slots(wanted - slots_.size(), slots_);
}

void PooledSlots::shrink(std::int64_t positions) {
    const auto kept = static_cast<std::size_t>(positions);
    if (kept < slots_.size()) {
        pool_->give_slots(std::span(slots_).subspan(kept));
        slots_.resize(kept);
    }
    stale_from_ = std::min(stale_from_, positions);
}

// The path ascends and path[k] > k, so that a swap never takes away what a later one needs.
void PooledSlots::keep(std::int64_t committed, std::span<const NodeIndex> path) {
    const auto root = static_cast<std::size_t>(committed);
    for (std::size_t k = 0; k < path.size(); ++k)
        std::swap(slots_[root + 1 + k], slots_[root + static_cast<std::size_t>(path[k])]);
    stale_from_ = std::min(stale_from_, committed + 1);
}

}  // namespace outrider
