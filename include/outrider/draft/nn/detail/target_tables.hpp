// The target's tables as a drafter on a device reads them: where they lie, without copies, as far as that can be.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/core/TensorOptions.h>

#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/draft/nn/detail/layers.hpp>
#include <outrider/target/target_head.hpp>

namespace outrider::detail {

/// Whether the head's tables lie on the device.
[[nodiscard]] inline bool shares_tables(const TargetHead& head, c10::Device device) {
    return head.embedding.defined() && head.embedding.device() == device;
}

/// What a drafter computes in: f32 on the CPU; on a device the type of the target's tables, f32 where the head has
/// none.
[[nodiscard]] inline at::ScalarType draft_type(const TargetHead& head, c10::Device device) {
    return !device.is_cpu() && shares_tables(head, device) ? head.embedding.scalar_type() : at::kFloat;
}

/// Embeddings of tokens that are numbers on the device: table[token] scale.
struct SharedEmbedding {
    at::Tensor table;  ///< [vocabulary, H]
    double scale = 1.0;

    SharedEmbedding(const TargetHead& head, const at::TensorOptions& options) {
        if (shares_tables(head, options.device()))
            table = head.embedding, scale = head.embedding_scale;
        else
            table = head.embed(draft_ids({}, head.vocabulary)).to(options);
    }
};

/// The target's output rows of the draft vocabulary [V, H]: the target's own where that is all of them.
[[nodiscard]] inline at::Tensor shared_output(const TargetHead& head, const std::vector<TokenId>& vocabulary,
                                              const at::TensorOptions& options) {
    const std::vector<TokenId> all = draft_ids({}, head.vocabulary);
    const bool whole = vocabulary.empty() || vocabulary == all;
    if (whole && shares_tables(head, options.device()) && head.output.scalar_type() == options.dtype().toScalarType())
        return head.output;
    return head.output_rows(whole ? all : vocabulary).to(options);
}

}  // namespace outrider::detail
