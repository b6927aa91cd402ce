// Training of Medusa's heads on text that the target wrote, target frozen (Medusa-1 of Cai et al. 2024,
// arXiv 2401.10774). How to use it: as train_ctc.hpp.
#pragma once

#include <cstdint>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/medusa/medusa_config.hpp>
#include <outrider/train/train_options.hpp>

namespace outrider {

/// Sizes and objective.
struct MedusaTrainOptions {
    std::int64_t heads = 5;   ///< head i learns the token i + 1 places behind the pending one
    std::int64_t blocks = 1;  ///< residual blocks of each head
    HeadOutput output = HeadOutput::shared;
    double teacher = 0.0;  ///< share of the target's own distribution in the loss (label_loss.hpp), the rest is the
                           ///< text's token
};

/// See train_ctc. The loss is the heads' cross-entropy, weighted by label_decay. A label outside the draft vocabulary
/// is left out alone: heads do not know of each other's labels, so the others learn as well without it.
OUTRIDER_API TrainResult train_medusa(const TrainOptions& options, const MedusaTrainOptions& medusa,
                                      const TrainTarget& target);

}  // namespace outrider
