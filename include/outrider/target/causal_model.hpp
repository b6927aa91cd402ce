// A language model as a drafter runs it: rows in, logits out, and a cache that goes back as easily as forth.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// Holds one KV cache a sequence. A forward writes rows after what a cache holds; `keep` makes the first of them stay,
/// `truncate` drops what was kept. Unknown sequences begin empty.
class OUTRIDER_API CausalModel {
public:
    virtual ~CausalModel() = default;

    struct Rows {
        SequenceId sequence = 0;
        std::span<const TokenId> tokens;          ///< at least one
        std::span<const NodeIndex> parents = {};  ///< kNoNode for the first, parents come first; empty: a chain
    };

    /// One forward over all rows; each sequence at most once. Returns logits [rows, V], float32 on the CPU and
    /// contiguous; undefined without `with_logits`. Throws Error for tokens and positions out of range.
    [[nodiscard]] virtual at::Tensor forward(std::span<const Rows> rows, bool with_logits) = 0;

    /// The same for those who look at few rows: logits [asked, V] of the rows `asked`, places among all rows,
    /// ascending.
    [[nodiscard]] virtual at::Tensor forward_for(std::span<const Rows> rows, std::span<const std::int64_t> asked) {
        return rows_at(forward(rows, true), asked);
    }

    /// Keeps the first `rows` rows of the sequence's last forward: a chain.
    virtual void keep(SequenceId sequence, std::int64_t rows) = 0;

    /// Keeps `length` tokens of those that the cache holds.
    virtual void truncate(SequenceId sequence, std::int64_t length) = 0;

    /// Forgets a sequence. Unknown ids are ignored.
    virtual void release(SequenceId sequence) = 0;

    [[nodiscard]] virtual std::int64_t vocabulary() const = 0;
    /// Most tokens that a sequence can hold.
    [[nodiscard]] virtual std::int64_t context() const = 0;
    /// Bytes of its weights as held; 0: not known.
    [[nodiscard]] virtual std::size_t weight_bytes() const { return 0; }
    /// Tells tokenizers apart: equal only for equal token ids. See TargetHead.
    [[nodiscard]] virtual const std::string& tokenizer() const = 0;

protected:
    /// Rows of logits where they lie: a view where they stand one below the other.
    [[nodiscard]] static at::Tensor rows_at(const at::Tensor& logits, std::span<const std::int64_t> asked) {
        if (!asked.empty() && asked.back() - asked.front() + 1 == std::ssize(asked))
            return logits.narrow(0, asked.front(), std::ssize(asked));
        const auto host = at::TensorOptions().dtype(at::kLong).device(at::kCPU).pinned_memory(!logits.is_cpu());
        const at::Tensor places = logits.new_empty({std::ssize(asked)}, host);
        std::copy(asked.begin(), asked.end(), places.mutable_data_ptr<std::int64_t>());
        return logits.index_select(0, places.to(logits.device(), true));
    }
};

}  // namespace outrider
