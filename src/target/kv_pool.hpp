// The keys and values of all sequences of a device pass: one block of memory, whose address never changes.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/target/detail/kv_cache.hpp>

namespace outrider {

/// Slots of one token each, handed out one by one, and a table on the device that says which slot holds which position
/// of which lane; a lane is a sequence. Slot 0 and lane 0 belong to nobody: rows that pad a forward write there.
class KvPool {
public:
    struct Limits {
        std::int64_t tokens = 0;     ///< of all sequences together
        std::int64_t sequences = 0;  ///< at once
        std::int64_t context = 0;    ///< positions of a sequence; a tree's rows may reach kTreeRows beyond
    };

    /// Allocates everything, and clears it: what is masked must still be a number.
    KvPool(const KvCache::Shape& shape, const Limits& limits, const at::TensorOptions& options);

    /// [layers, slots, 2 kv_heads, head_dim] keys, then values.
    [[nodiscard]] const at::Tensor& store() const { return store_; }
    /// [lanes, columns] int64; columns is a multiple of kColumnStep.
    [[nodiscard]] const at::Tensor& table() const { return table_; }
    [[nodiscard]] std::int64_t columns() const { return table_.size(1); }
    [[nodiscard]] std::int64_t free_tokens() const { return static_cast<std::int64_t>(free_.size()); }
    [[nodiscard]] const Limits& limits() const { return limits_; }
    [[nodiscard]] std::size_t token_bytes() const { return token_bytes_; }

    static constexpr std::int64_t kColumnStep = 64, kTreeRows = 1024;

private:
    friend class PooledSlots;

    /// Throw Error (out of memory) where there is none.
    std::int64_t take_lane();
    void take_slots(std::size_t count, std::vector<std::int64_t>& into);
    void give_slots(std::span<const std::int64_t> slots);
    void give_lane(std::int64_t lane) { lanes_.push_back(lane); }

    Limits limits_;
    at::Tensor store_, table_;
    std::vector<std::int64_t> free_, lanes_;  // the last one is handed out first
    std::size_t token_bytes_ = 0;
};

/// The slots of one sequence. Position p of the text, and row r of a forward at p = committed + r, is in slot at(p).
class PooledSlots {
public:
    /// Takes a lane. Throws Error (out of memory) where all are taken.
    explicit PooledSlots(std::shared_ptr<KvPool> pool);
    PooledSlots(const PooledSlots&) = delete;
    PooledSlots& operator=(const PooledSlots&) = delete;
    ~PooledSlots();

    /// At least `positions` slots; what was taken stays until `shrink`.
    void grow(std::int64_t positions);
    void shrink(std::int64_t positions);
    /// Behind `committed` and the root: the slots of the rows `path`, in order. The others follow, to be used again.
    void keep(std::int64_t committed, std::span<const NodeIndex> path);

    [[nodiscard]] std::int64_t at(std::int64_t position) const { return slots_[static_cast<std::size_t>(position)]; }
    [[nodiscard]] std::int64_t lane() const { return lane_; }
    [[nodiscard]] std::size_t bytes() const { return slots_.size() * pool_->token_bytes(); }
    [[nodiscard]] const KvPool& pool() const { return *pool_; }

    /// Positions from here on differ from the device's table. A forward brings the table up to a position.
    [[nodiscard]] std::int64_t stale_from() const { return stale_from_; }
    void brought_up_to(std::int64_t position) { stale_from_ = position; }

private:
    std::shared_ptr<KvPool> pool_;
    std::int64_t lane_ = 0;
    std::vector<std::int64_t> slots_;
    std::int64_t stale_from_ = 0;
};

}  // namespace outrider
