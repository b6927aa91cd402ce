// Attention of single rows over one sequence's cache: the committed text and the ancestors of a draft tree's node.
#pragma once

#include <cstdint>
#include <span>

#include <outrider/core/detail/thread_team.hpp>

#include "kernels/packed_linear.hpp"

namespace outrider {

/// How keys and values are held in the cache.
enum class CacheFormat : unsigned char { f32, f16, bf16 };

/// Bytes of one element.
[[nodiscard]] constexpr std::int64_t element_bytes(CacheFormat format) { return format == CacheFormat::f32 ? 4 : 2; }

/// The format of two bytes that the active path's attention reads fastest: bf16 where pairs of it are multiplied at
/// once, else f16.
[[nodiscard]] CacheFormat narrow_format();

/// Converts n floats into cache elements, rounding to nearest even.
void to_cache(CacheFormat format, const float* x, std::int64_t n, void* elements);

inline constexpr std::int64_t kKeyPanel = 16;  ///< slots of a panel; memory is there for whole panels

/// One layer of one sequence's cache. Element d of KV head h in slot s is at values[s * slot_stride + h * head_stride +
/// d]; keys lie in panels, the same element of 16 slots side by side: at keys[h * head_stride + (s / 16 * head_dim + d)
/// * 16 + s % 16].
struct CacheView {
    const void* keys = nullptr;
    const void* values = nullptr;
    std::int64_t slot_stride = 0;  ///< in elements
    std::int64_t head_stride = 0;  ///< in elements
};

/// Writes a key [head_dim] into `slot` of the panels at `keys` (one KV head's).
void to_key_panels(CacheFormat format, const float* key, std::int64_t head_dim, std::int64_t slot, void* keys);

/// What one row sees, in text order: `committed` slots from `first` on, then `slots`, itself last. A row of a prompt
/// that sees all before it may count itself and them as committed; `first` is above 0 where a window hides the oldest.
struct AttentionRow {
    CacheView cache;
    std::int64_t committed = 0;
    std::span<const std::int32_t> slots = {};
    std::int64_t first = 0;

    [[nodiscard]] std::int64_t positions() const noexcept {
        return committed + static_cast<std::int64_t>(slots.size());
    }
};

struct AttentionShape {
    CacheFormat format = CacheFormat::f32;
    std::int64_t heads = 1;  ///< of queries; a multiple of kv_heads, query head h uses KV head h / (heads / kv_heads)
    std::int64_t kv_heads = 1;
    std::int64_t head_dim = 64;  ///< a multiple of 16
    float scale = 0.125F;        ///< of the scores, usually 1 / sqrt(head_dim)
    float cap = 0;               ///< then they become cap tanh(score / cap); 0: they stay
};

/// Floats of scratch memory that one member needs for rows that see at most `positions` positions.
[[nodiscard]] std::int64_t attention_scratch(const AttentionShape& shape, std::int64_t positions);

/// out[row] [heads, head_dim] = softmax(scale q K^T) V over what the row sees. q and out have row strides ldq and ldo
/// (floats). Every member calls it, computes its share (split by positions seen), and needs its own
/// attention_scratch(shape, most positions) floats at `scratch`; a barrier must follow before out is read. Neighbouring
/// rows of one cache share the loads of its keys and values. Where `parts` is given, rows of heads * head_dim values,
/// each query's output is packed there too; head_dim must be a multiple of 32 then.
///
/// A row's result depends on its query and on the keys and values it sees in text order, bit for bit: not on the other
/// rows, not on threads, and not on which of its positions are committed and which are tree rows. So a tree's node has
/// the bits that plain decoding would give it.
void attend(TeamMember& member, const AttentionShape& shape, std::span<const AttentionRow> rows, const float* q,
            std::int64_t ldq, float* out, std::int64_t ldo, float* scratch, const PackedRows::Parts* parts = nullptr);

}  // namespace outrider
