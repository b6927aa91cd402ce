// Bodies of owed_sequence.hpp.
#pragma once

#include <outrider/draft/detail/owed_sequence.hpp>

#include <ATen/core/grad_mode.h>

#include <outrider/target/features.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE void OwedSequence::add(SequenceFeedback now) {
    if (now.features.defined()) features_.push_back(std::move(now.features));
    feedback_.tokens.insert(feedback_.tokens.end(), now.tokens.begin(), now.tokens.end());
    feedback_.sequence = now.sequence, feedback_.pending = now.pending, feedback_.committed = now.committed;
}

OUTRIDER_INLINE SequenceFeedback OwedSequence::take() {
    const at::NoGradGuard no_grad;
    SequenceFeedback whole = feedback_;
    feedback_.tokens.clear();
    if (features_.size() > 1) {
        // An empty prompt's features may have another width than those of its text: none at all.
        std::erase_if(features_, [](const at::Tensor& piece) { return piece.size(0) == 0; });
    }
    if (!features_.empty()) whole.features = features_.size() == 1 ? std::move(features_[0]) : join_rows(features_);
    features_.clear();
    return whole;
}

}  // namespace outrider
