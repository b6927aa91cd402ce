// Training of CTC drafters on text that the target wrote, target frozen.
//
// How to use it (the program's `train --kind ctc` does this):
//     TrainOptions options{.data = {"text.jsonl"}, .output = "my-drafter", .minutes = 60};
//     options.progress = [](const TrainProgress& p) { fmt::print(stderr, "{}\n", describe(p)); return true; };
//     const TrainResult result = train_ctc(options, {.frames = 6}, {model.head(), &verifier, model_name, encode});
// `output` is a drafter folder from the first checkpoint on: CtcDraft::load(output, model.head()) reads it. With
// options.resume a stopped run goes on from its last checkpoint.
#pragma once

#include <cstdint>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/ctc/ctc_config.hpp>
#include <outrider/train/train_options.hpp>

namespace outrider {

/// What a CTC drafter learns from the labels y_1..y_U after an anchor.
enum class CtcLossKind : unsigned char {
    prefix,  ///< -sum_k w_k log q(y_k | y_<k): the text may go on, so that nothing forces an end
    ctc,     ///< -log P(y_1:U) (the paper's): the alignments must collapse to exactly the window
};

/// Sizes and objective.
struct CtcTrainOptions {
    std::int64_t frames = 8;
    std::int64_t heads = 0;         ///< 0: hidden / 64, at least 1
    std::int64_t kv_heads = 0;      ///< 0: heads / 3 where that divides, else heads
    std::int64_t intermediate = 0;  ///< 0: 8/3 of hidden, rounded up to 64
    CtcConditioning conditioning = CtcConditioning::prefix;
    std::int64_t layers = 1;
    std::int64_t prefix_rank = 1024;
    std::int64_t prefix_bottleneck = 256;  ///< 0, or no less than prefix_rank: none
    HeadOutput output =
        HeadOutput::target;  ///< rows of the prediction network: `own` or `target`; `shared` is an error
    std::vector<std::int64_t> feature_layers = {};  ///< CtcConfig's. A drafter to start from may have some of them
                                                    ///< only: what the others add begins at zero

    CtcLossKind loss = CtcLossKind::prefix;
    std::int64_t labels = 6;  ///< U
    double teacher = 0.0;     ///< share of each label that follows the target's own distribution, by its likeliest
                              ///< tokens at temperature 1; prefix loss only
};

/// Runs until the plan is fulfilled, on all physical cores: it works on the parts of a batch beside each other, so ATen
/// should do each on one thread (at::set_num_threads(1), which is the host's to call). Throws Error for options that do
/// not fit the data, the target, the drafter to start from or the checkpoint.
OUTRIDER_API TrainResult train_ctc(const TrainOptions& options, const CtcTrainOptions& ctc, const TrainTarget& target);

}  // namespace outrider
