// One forward of the target over ragged rows: what the verifier asks of a model, whatever computes it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/types.hpp>
#include <outrider/target/detail/kv_cache.hpp>

namespace outrider {

/// The rows of one sequence in a forward. Row i is written to slot committed + i of `cache` and sees the committed
/// slots, its ancestors and itself; its position is committed + depth.
struct RowSegment {
    KvCache* cache = nullptr;
    std::span<const TokenId> tokens;
    /// Parent row of each row, kNoNode for the first, parents come first; empty: a chain, as in a prompt.
    std::span<const NodeIndex> parents = {};
    bool logits = true;  ///< whether its rows get logits, where any do; segments without them come last
    const SamplingOptions* picks = nullptr;  ///< see SequenceTree
};

/// What a forward is made for, each with all before it.
enum class PassFor : unsigned char {
    features,
    choices,  ///< argmax, from logits or without them
    logits,   ///< with argmax where the pass computes it
};

/// Position of each row of a segment: committed + depth.
[[nodiscard]] inline std::vector<std::int64_t> row_positions(const RowSegment& segment) {
    std::vector<std::int64_t> result(segment.tokens.size());
    for (std::size_t i = 0; i < result.size(); ++i) {
        const NodeIndex parent = segment.parents.empty() ? static_cast<NodeIndex>(i) - 1 : segment.parents[i];
        result[i] = parent < 0 ? segment.cache->committed() : result[static_cast<std::size_t>(parent)] + 1;
    }
    return result;
}

/// Rows of all segments one after another, on the device of the model.
struct PassOutput {
    at::Tensor features;  ///< [rows, F] float32: hidden states after the final norm, then those of the layers that were
                          ///< asked for, as in FeatureRequest
    at::Tensor logits;    ///< [rows that get them, V] float32; undefined where not asked for, or not computed
    at::Tensor
        argmax;  ///< [the same] int64 on the CPU, the lowest id among equals, -1 for NaN; undefined: not computed
    at::Tensor picks = {};  ///< [the same] int64 on the CPU: see TreeOutput; undefined: nobody asked, or not computed
    /// Where `argmax` was found by bounds: panels of the output matrix that they left to be computed. Else nothing.
    std::optional<std::int64_t> panels_left = {};
};

/// Weights are shared, scratch memory is not: one pass serves one caller at a time.
class OUTRIDER_API TargetPass {
public:
    virtual ~TargetPass() = default;

    /// Runs all rows in one forward. The caller keeps tokens within the vocabulary and positions within the context.
    /// `feature_layers`: of FeatureRequest, for all rows.
    [[nodiscard]] virtual PassOutput forward(std::span<const RowSegment> segments, PassFor use,
                                             std::span<const std::int64_t> feature_layers = {}) = 0;

    /// Whether segments may go without logits beside others (RowSegment::logits).
    [[nodiscard]] virtual bool mixes() const { return false; }

    /// An empty cache of the form that `forward` reads and writes.
    [[nodiscard]] virtual KvCache make_cache() const = 0;

protected:
    TargetPass() = default;
    TargetPass(const TargetPass&) = default;
    TargetPass& operator=(const TargetPass&) = default;
};

}  // namespace outrider
