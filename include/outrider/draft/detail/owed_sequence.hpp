// What a drafter that is not asked every round has not seen yet of one sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include <outrider/target/detail/features.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Gathers the feedback of the rounds between and gives it as one.
class OwedSequence {
public:
    void add(SequenceFeedback now) {
        if (now.features.defined()) features_.push_back(std::move(now.features));
        feedback_.tokens.insert(feedback_.tokens.end(), now.tokens.begin(), now.tokens.end());
        feedback_.sequence = now.sequence, feedback_.pending = now.pending, feedback_.committed = now.committed;
    }

    [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(feedback_.tokens.size()); }

    /// Of these, tokens whose features are kept.
    [[nodiscard]] std::int64_t features() const { return features_.empty() ? 0 : tokens(); }

    /// All of it; nothing is owed any more.
    [[nodiscard]] SequenceFeedback take() {
        SequenceFeedback whole = feedback_;
        feedback_.tokens.clear();
        if (features_.size() > 1)  // an empty prompt has no rows to join
            std::erase_if(features_, [](const at::Tensor& piece) { return piece.size(0) == 0; });
        if (!features_.empty()) whole.features = features_.size() == 1 ? std::move(features_[0]) : join_rows(features_);
        features_.clear();
        return whole;
    }

private:
    SequenceFeedback feedback_;         ///< `features` apart
    std::vector<at::Tensor> features_;  ///< round by round
};

}  // namespace outrider
