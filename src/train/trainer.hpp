// The run itself: data, held-out split, batches, schedule, optimiser, checkpoints, evaluation. One for all drafters.
#pragma once

#include <outrider/train/train.hpp>

#include "learner.hpp"

namespace outrider {

/// Trains what `make` makes until the plan is fulfilled. `feature_layers`: of the target, ascending, beside whose final
/// features it is trained on those of these layers. Throws Error for options that do not fit.
TrainResult run_training(const TrainOptions& options, const TrainTarget& target, const LearnerMaker& make,
                         const std::vector<std::int64_t>& feature_layers = {});

}  // namespace outrider
