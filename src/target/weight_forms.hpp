// In which form the CPU's target pass holds the matrices of a checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/packed_linear.hpp"
#include <outrider/target/model_config.hpp>

#include "weight_source.hpp"

namespace outrider::kernel_target {

/// How ggml's type is multiplied as it is stored; empty: no fast path.
[[nodiscard]] std::optional<WeightFormat> fast_format(GgmlType type);

/// The form of matrices that multiply the same rows.
struct GroupForm {
    bool stored = false;                     ///< each in the file's own format
    WeightFormat made = WeightFormat::bf16;  ///< else of all of them

    [[nodiscard]] WeightFormat of(GgmlType type) const { return stored ? *fast_format(type) : made; }
};

/// As stored when every one of them has a fast path; a group that has not is held in f32 when the file does and
/// `stored` was asked for, else in bf16.
[[nodiscard]] GroupForm form_of(const WeightSource& source, const std::vector<std::string>& names, Weights wanted);

/// Whether an output matrix of so many weights, beside layers of `layer_bytes`, is held so that the largest logit is
/// found without most of it. That gains where it is most of what a pass reads: a few rows more are dearer then. What
/// becomes of logits behind the product could make two of them equal: there all are computed.
[[nodiscard]] bool chosen_from(const ModelConfig& config, WeightFormat format, std::int64_t weights,
                               std::size_t layer_bytes);

/// Of the matrix that gives the logits.
[[nodiscard]] inline const char* output_name(const ModelConfig& config) {
    return config.tied_output ? "embed" : "output";
}

/// Bytes of all matrices, packed; reads no weights. What a model that was loaded so tells as LlamaModel::weight_bytes.
[[nodiscard]] std::size_t packed_bytes(const WeightSource& source, const ModelConfig& config, Weights wanted);

}  // namespace outrider::kernel_target
