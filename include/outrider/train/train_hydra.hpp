// Training of Hydra's heads on text that the target wrote, target frozen (Ankner et al. 2024, arXiv 2402.05109). How to
// use it: as train_ctc.hpp.
#pragma once

#include <cstdint>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/hydra/hydra_config.hpp>
#include <outrider/train/train_options.hpp>

namespace outrider {

/// Sizes and objective.
struct HydraTrainOptions {
    std::int64_t heads = 4;   ///< head i learns the token i + 1 places behind the pending one
    std::int64_t blocks = 1;  ///< of each head
    HydraResidual residual = HydraResidual::feature;
    HeadOutput output = HeadOutput::target;
    bool output_bias = false;

    bool prefix_layer = true;          ///< Hydra++
    std::int64_t attention_heads = 0;  ///< of that layer, as the next two; 0: see CtcTrainOptions
    std::int64_t kv_heads = 0;
    std::int64_t intermediate = 0;

    double teacher = 0.0;  ///< share of the target's own distribution in the loss (label_loss.hpp), the rest is the
                           ///< text's token; 1 is how Hydra++ was published
};

/// See train_ctc. Every head sees the true tokens before its own (teacher forcing). The loss is the heads'
/// cross-entropy, weighted by label_decay. A label outside the draft vocabulary ends an anchor's labels: no draft can
/// go through it, so that what heads behind it learnt would serve no one.
OUTRIDER_API TrainResult train_hydra(const TrainOptions& options, const HydraTrainOptions& hydra,
                                     const TrainTarget& target);

}  // namespace outrider
