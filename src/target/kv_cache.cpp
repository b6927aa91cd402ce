#include <outrider/target/detail/kv_cache.hpp>

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <outrider/core/error.hpp>

#include "kv_pool.hpp"

namespace outrider {
namespace {

constexpr std::int64_t kFirstCapacity = 128;
constexpr std::int64_t kPanel = 16;  // slots
constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// Uninitialised. On the CPU its whole large pages are asked for as such: a pass reads a little from each of many
/// planes, and the system gives large pages where it can. No matter if it refuses.
at::Tensor cache_memory(at::IntArrayRef sizes, const at::TensorOptions& options) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    std::size_t bytes = options.dtype().itemsize();
    for (const std::int64_t size : sizes) bytes *= static_cast<std::size_t>(size);
    if (options.device().is_cpu() && bytes >= kHugePage) {
        // Not rounded up: the rest behind the last whole page stays in small ones, as far as it is used.
        void* memory = nullptr;
        if (posix_memalign(&memory, kHugePage, bytes) != 0) throw std::bad_alloc();
        std::shared_ptr<void> owner(memory, std::free);
        madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
        return at::from_blob(memory, sizes, [owner = std::move(owner)](void*) {}, options);
    }
#endif
    return at::empty(sizes, options);
}

}  // namespace

KvCache::KvCache(Shape shape, const at::TensorOptions& options) : shape_(shape), options_(options) {}
KvCache::KvCache(std::unique_ptr<PooledSlots> pooled) : pooled_(std::move(pooled)) {}
KvCache::KvCache(KvCache&&) noexcept = default;
KvCache& KvCache::operator=(KvCache&&) noexcept = default;
KvCache::~KvCache() = default;

std::size_t KvCache::bytes() const {
    if (pooled_) return pooled_->bytes();
    return data_.defined() ? static_cast<std::size_t>(data_.nbytes()) : 0;
}

void KvCache::reserve(std::int64_t rows) {
    const std::int64_t needed = committed_ + rows;
    if (pooled_) {
        pooled_->grow(needed);
        capacity_ = std::max(capacity_, needed);
        return;
    }
    if (needed <= capacity_) return;
    std::int64_t capacity = std::max(capacity_, kFirstCapacity);
    while (capacity < needed) capacity += capacity / 2;
    capacity = (capacity + 31) / 32 * 32;
    at::Tensor grown = cache_memory({shape_.layers, 2, shape_.kv_heads, capacity, shape_.head_dim}, options_);
    if (committed_ > 0) copy_slots(committed_, grown, capacity);
    data_ = std::move(grown);
    capacity_ = capacity;
}

// On the CPU by hand: ATen would wake its own threads, which then spin beside those of the pass.
void KvCache::copy_slots(std::int64_t tokens, at::Tensor& grown, std::int64_t capacity) const {
    if (!data_.device().is_cpu()) {
        grown.slice(3, 0, tokens).copy_(data_.slice(3, 0, tokens));
        return;
    }
    const std::size_t row = static_cast<std::size_t>(shape_.head_dim) * data_.element_size();
    const std::int64_t slots = (tokens + kPanel - 1) / kPanel * kPanel;  // whole panels
    const auto* from = static_cast<const std::byte*>(data_.data_ptr());
    auto* to = static_cast<std::byte*>(grown.data_ptr());
    for (std::int64_t plane = 0; plane < shape_.layers * 2 * shape_.kv_heads; ++plane) {
        std::memcpy(to, from, static_cast<std::size_t>(slots) * row);
        from += static_cast<std::size_t>(capacity_) * row;
        to += static_cast<std::size_t>(capacity) * row;
    }
}

KvCache KvCache::copy(std::int64_t tokens) const {
    OUTRIDER_ASSERT(tokens >= 0 && tokens <= committed_);
    KvCache twin(shape_, options_);
    if (tokens == 0) return twin;
    twin.reserve(tokens);
    twin.data_.zero_();  // what no row has been written to must not end up in a file
    copy_slots(tokens, twin.data_, twin.capacity_);
    twin.committed_ = tokens;
    return twin;
}

void KvCache::load(at::Tensor slots, std::int64_t committed) {
    require(
        slots.dim() == 5 && slots.size(0) == shape_.layers && slots.size(1) == 2 && slots.size(2) == shape_.kv_heads &&
            slots.size(3) % 32 == 0 && slots.size(3) >= committed && slots.size(4) == shape_.head_dim &&
            committed >= 0 && slots.is_contiguous() &&
            slots.scalar_type() == c10::typeMetaToScalarType(options_.dtype()),
        ErrorKind::damaged_file,
        "KvCache: slots of another form; expected [{}, 2, {}, a multiple of 32 from {} on, {}] of this cache's dtype",
        shape_.layers, shape_.kv_heads, committed, shape_.head_dim);
    capacity_ = slots.size(3);
    committed_ = committed;
    data_ = std::move(slots);
}

void KvCache::append(std::int64_t rows) {
    OUTRIDER_ASSERT(rows >= 0 && committed_ + rows <= capacity_);
    committed_ += rows;
}

void KvCache::truncate(std::int64_t committed) {
    OUTRIDER_ASSERT(committed >= 0 && committed <= committed_);
    committed_ = committed;
    if (!pooled_) return;
    pooled_->shrink(committed);
    capacity_ = committed;
}

void KvCache::keep(std::span<const NodeIndex> path) {
    OUTRIDER_ASSERT(committed_ < capacity_);
    std::size_t in_place = 0;
    while (in_place < path.size() && path[in_place] == static_cast<NodeIndex>(in_place) + 1) ++in_place;
    if (in_place < path.size() && pooled_)
        pooled_->keep(committed_, path);
    else if (in_place < path.size())
        move_slots(path);
    committed_ += 1 + static_cast<std::int64_t>(path.size());
}

// A slot moves towards the front only, past slots that were moved already: ascending order never overwrites a source.
void KvCache::move_slots(std::span<const NodeIndex> path) {
    if (!data_.device().is_cpu()) {
        std::vector<std::int64_t> sources(path.begin(), path.end());
        for (std::int64_t& slot : sources) slot += committed_;
        const at::Tensor index = at::tensor(sources, at::kLong).to(data_.device());
        const std::int64_t begin = committed_ + 1;
        data_.slice(3, begin, begin + static_cast<std::int64_t>(path.size())).copy_(data_.index_select(3, index));
        return;
    }
    const std::size_t plane_bytes = static_cast<std::size_t>(capacity_ * shape_.head_dim) * data_.element_size();
    auto* plane = static_cast<std::byte*>(data_.data_ptr());
    for (std::int64_t i = 0; i < shape_.layers * 2 * shape_.kv_heads; ++i, plane += plane_bytes) {
        const bool values = i / shape_.kv_heads % 2 == 1;
        if (values || !shape_.key_panels)
            move_rows(plane, path);
        else if (data_.element_size() == 2)
            move_in_panels<std::uint16_t>(plane, path);
        else
            move_in_panels<float>(plane, path);
    }
}

void KvCache::move_rows(std::byte* plane, std::span<const NodeIndex> path) const {
    const std::size_t row = static_cast<std::size_t>(shape_.head_dim) * data_.element_size();
    std::byte* root = plane + static_cast<std::size_t>(committed_) * row;
    for (std::size_t i = 0; i < path.size(); ++i)
        if (path[i] != static_cast<NodeIndex>(i) + 1)
            std::memcpy(root + (i + 1) * row, root + static_cast<std::size_t>(path[i]) * row, row);
}

template <typename Element>
void KvCache::move_in_panels(std::byte* plane, std::span<const NodeIndex> path) const {
    const auto place = [&](std::int64_t behind_root) {
        const std::int64_t slot = committed_ + behind_root;
        return reinterpret_cast<Element*>(plane) + slot / kPanel * kPanel * shape_.head_dim + slot % kPanel;
    };
    for (std::size_t i = 0; i < path.size(); ++i) {
        if (path[i] == static_cast<NodeIndex>(i) + 1) continue;
        const Element* from = place(path[i]);
        Element* to = place(static_cast<std::int64_t>(i) + 1);
        for (std::int64_t d = 0; d < shape_.head_dim * kPanel; d += kPanel) to[d] = from[d];
    }
}

}  // namespace outrider
