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
#include <unistd.h>
#endif

#include <outrider/core/error.hpp>

#include "kv_pool.hpp"

namespace outrider {
namespace {

constexpr std::int64_t kFirstCapacity = 128;
constexpr std::int64_t kLastShare = 4;  // of the slots: while these fill, the layers move to larger storage
constexpr std::int64_t kPanel = 16;     // slots
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

// Of all layers together.
std::size_t KvCache::slot_bytes() const {
    return static_cast<std::size_t>(shape_.layers * 2 * shape_.kv_heads * shape_.head_dim) *
           options_.dtype().itemsize();
}

std::size_t KvCache::bytes() const {
    if (pooled_) return pooled_->bytes();
    std::size_t sum = slot_bytes() * static_cast<std::size_t>(capacity_);
    if (moved_ > 0)
        sum += slot_bytes() * static_cast<std::size_t>((next_.size(3) - capacity_) * moved_ / shape_.layers);
    return sum;
}

KvCache::Layer KvCache::layer(std::int64_t layer) const {
    const at::Tensor& slots = home(layer);
    const std::int64_t capacity = slots.size(3), before = layer * capacity;
    const std::size_t bytes = slot_bytes() / static_cast<std::size_t>(shape_.layers);
    return {static_cast<std::byte*>(slots.data_ptr()) + static_cast<std::size_t>(before) * bytes, capacity};
}

void KvCache::reserve(std::int64_t rows) {
    const std::int64_t needed = committed_ + rows;
    if (pooled_) {
        pooled_->grow(needed);
        capacity_ = std::max(capacity_, needed);
        return;
    }
    while (needed > capacity_) {
        if (!next_.defined()) begin_growth(needed);
        move_layers(shape_.layers);
    }
    // Ahead of need, a share of the layers with each share of the last slots.
    const std::int64_t last = capacity_ / kLastShare, into = needed - (capacity_ - last);
    if (into <= 0) return;
    if (!next_.defined()) begin_growth(capacity_ + 1);
    move_layers(std::max(moved_, (shape_.layers - 1) * into / last));
}

void KvCache::begin_growth(std::int64_t slots) {
    std::int64_t capacity = std::max(capacity_, kFirstCapacity);
    while (capacity < slots) capacity += capacity / 2;
    capacity = (capacity + 31) / 32 * 32;
    next_ = cache_memory({shape_.layers, 2, shape_.kv_heads, capacity, shape_.head_dim}, options_);
}

void KvCache::move_layers(std::int64_t end) {
    for (; moved_ < end; ++moved_) {
        if (committed_ == 0) continue;
        copy_layer(moved_, committed_, next_);
        let_go(moved_);
    }
    if (moved_ < shape_.layers) return;
    data_ = std::move(next_);
    next_.reset(), moved_ = 0, capacity_ = data_.size(3);
}

// On the CPU by hand: ATen would wake its own threads, which then spin beside those of the pass.
void KvCache::copy_layer(std::int64_t layer, std::int64_t tokens, at::Tensor& to) const {
    const at::Tensor& from = home(layer);
    if (!from.device().is_cpu()) {
        to.select(0, layer).slice(2, 0, tokens).copy_(from.select(0, layer).slice(2, 0, tokens));
        return;
    }
    const std::size_t row = static_cast<std::size_t>(shape_.head_dim) * from.element_size();
    const std::int64_t slots = (tokens + kPanel - 1) / kPanel * kPanel;  // whole panels
    for (std::int64_t plane = layer * 2 * shape_.kv_heads; plane < (layer + 1) * 2 * shape_.kv_heads; ++plane)
        std::memcpy(
            static_cast<std::byte*>(to.data_ptr()) + static_cast<std::size_t>(plane * to.size(3)) * row,
            static_cast<const std::byte*>(from.data_ptr()) + static_cast<std::size_t>(plane * from.size(3)) * row,
            static_cast<std::size_t>(slots) * row);
}

// The whole pages of a layer's old place: it is not read again, and the rest of the old storage stays for a while.
void KvCache::let_go(std::int64_t layer) {
#if defined(__linux__) && defined(MADV_DONTNEED)
    if (!data_.device().is_cpu()) return;
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE)),
                      bytes = data_.nbytes() / static_cast<std::size_t>(shape_.layers);
    const auto begin = reinterpret_cast<std::uintptr_t>(data_.data_ptr()) + static_cast<std::size_t>(layer) * bytes;
    const std::uintptr_t from = (begin + page - 1) / page * page, to = (begin + bytes) / page * page;
    if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
#endif
}

KvCache KvCache::copy(std::int64_t tokens) const {
    OUTRIDER_ASSERT(tokens >= 0 && tokens <= committed_);
    KvCache twin(shape_, options_);
    if (tokens == 0) return twin;
    twin.begin_growth(tokens), twin.move_layers(shape_.layers);
    twin.data_.zero_();  // what no row has been written to must not end up in a file
    for (std::int64_t layer = 0; layer < shape_.layers; ++layer) copy_layer(layer, tokens, twin.data_);
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
    next_.reset(), moved_ = 0;
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
        const std::int64_t begin = committed_ + 1, end = begin + static_cast<std::int64_t>(path.size());
        const auto move_in = [&](const at::Tensor& layers) {
            layers.slice(3, begin, end).copy_(layers.index_select(3, index));
        };
        if (moved_ > 0) move_in(next_.slice(0, 0, moved_));
        return move_in(data_.slice(0, moved_));
    }
    for (std::int64_t l = 0; l < shape_.layers; ++l) {
        const auto [data, capacity] = layer(l);
        const std::size_t plane = static_cast<std::size_t>(capacity * shape_.head_dim) * data_.element_size();
        for (std::int64_t i = 0; i < 2 * shape_.kv_heads; ++i) {
            std::byte* const at = data + static_cast<std::size_t>(i) * plane;
            if (i >= shape_.kv_heads || !shape_.key_panels)
                move_rows(at, path);
            else if (data_.element_size() == 2)
                move_in_panels<std::uint16_t>(at, path);
            else
                move_in_panels<float>(at, path);
        }
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
