// The keys and values of one sequence, in all layers of the target.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

class PooledSlots;

/// Slots 0 .. committed-1 hold the committed tokens in text order (slot = position). A forward writes its rows to the
/// slots behind them, in row order; then `append` or `keep` commits some and the rest is forgotten. Keys are stored
/// after the rotary embedding: a row's position is committed + depth, so it is right before and after compaction.
/// Storage grows geometrically, layer by layer while the last quarter of it fills, so that no forward waits for all of
/// it to be copied; what a layer leaves behind goes back to the system. Copying is costly, so the class moves, and
/// `copy` has a name.
class OUTRIDER_API KvCache {
public:
    /// One layer's slots without a tensor around them: [2, kv_heads, capacity, head_dim], keys before values. The
    /// capacity is a multiple of 32, and not the same in all layers while the cache grows.
    struct Layer {
        std::byte* data = nullptr;
        std::int64_t capacity = 0;
    };

    struct Shape {
        std::int64_t layers = 0;
        std::int64_t kv_heads = 0;
        std::int64_t head_dim = 0;
        /// Keys lie in panels of 16 slots, [capacity / 16, head_dim, 16] for each head, as the CPU's kernels read them
        /// (attention.hpp); then keys() has no meaning.
        bool key_panels = false;
    };

    /// Empty, nothing allocated. `options` gives device and dtype of the storage.
    KvCache(Shape shape, const at::TensorOptions& options);
    /// Its slots are some of a pool's, which all sequences of a device pass share (src/target/kv_pool.hpp). Nothing
    /// moves when tokens are committed; keys(), values() and data() have no meaning.
    explicit KvCache(std::unique_ptr<PooledSlots> pooled);

    KvCache(KvCache&&) noexcept;
    KvCache& operator=(KvCache&&) noexcept;
    ~KvCache();

    /// Tokens that are committed.
    [[nodiscard]] std::int64_t committed() const noexcept { return committed_; }
    /// Slots of every layer.
    [[nodiscard]] std::int64_t capacity() const noexcept { return capacity_; }
    /// Of the slots that are held.
    [[nodiscard]] std::size_t bytes() const;

    /// Makes room for `rows` slots behind the committed ones. Invalidates views. Throws Error (out of memory) where a
    /// pool is exhausted; nothing has changed then.
    void reserve(std::int64_t rows);

    /// Where the slots are a pool's; null else.
    [[nodiscard]] PooledSlots* pooled() const noexcept { return pooled_.get(); }

    /// [kv_heads, the layer's capacity, head_dim] views of one layer, contiguous in that order.
    [[nodiscard]] at::Tensor keys(std::int64_t layer) const { return home(layer).select(0, layer).select(0, 0); }
    [[nodiscard]] at::Tensor values(std::int64_t layer) const { return home(layer).select(0, layer).select(0, 1); }
    [[nodiscard]] Layer layer(std::int64_t layer) const;

    /// Another cache with the first `tokens` committed tokens.
    [[nodiscard]] KvCache copy(std::int64_t tokens) const;

    /// All slots of a cache that does not grow, as a copy is: [layers, 2, kv_heads, capacity, head_dim]; undefined
    /// where nothing is allocated.
    [[nodiscard]] const at::Tensor& tensor() const noexcept { return data_; }
    [[nodiscard]] const at::TensorOptions& options() const noexcept { return options_; }
    [[nodiscard]] bool key_panels() const noexcept { return shape_.key_panels; }

    /// Takes slots as `tensor` gives them, of which the first `committed` are committed. Throws Error where they are
    /// not of this cache's form.
    void load(at::Tensor slots, std::int64_t committed);

    /// Commits the first `rows` slots behind the committed ones: a prompt's chunk, in text order.
    void append(std::int64_t rows);

    /// Takes back all but the first `committed` tokens. For drafters, whose tokens are guesses; targets never do it.
    void truncate(std::int64_t committed);

    /// Commits slot 0 behind the committed ones (the root) and then the slots `path` (ascending, > 0), moving the
    /// latter directly behind the root.
    void keep(std::span<const NodeIndex> path);

private:
    [[nodiscard]] const at::Tensor& home(std::int64_t layer) const { return layer < moved_ ? next_ : data_; }
    [[nodiscard]] std::size_t slot_bytes() const;
    void begin_growth(std::int64_t slots);
    void move_layers(std::int64_t end);
    void copy_layer(std::int64_t layer, std::int64_t tokens, at::Tensor& to) const;
    void let_go(std::int64_t layer);
    void move_slots(std::span<const NodeIndex> path);
    void move_rows(std::byte* plane, std::span<const NodeIndex> path) const;
    template <typename Element>
    void move_in_panels(std::byte* plane, std::span<const NodeIndex> path) const;

    Shape shape_;
    at::TensorOptions options_;
    at::Tensor data_;  // [layers, 2, kv_heads, capacity, head_dim]
    at::Tensor next_;  // the same with more capacity, while it grows: its first layers have moved there
    std::int64_t moved_ = 0;
    std::int64_t committed_ = 0;
    std::int64_t capacity_ = 0;  // of data_
    std::unique_ptr<PooledSlots> pooled_;
};

}  // namespace outrider
