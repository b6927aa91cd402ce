// What a drafter that is not asked every round has not seen yet of one sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include <outrider/target/round.hpp>

namespace outrider {

/// Gathers the feedback of the rounds between and gives it as one.
class OwedSequence {
public:
    void add(SequenceFeedback feedback);

    [[nodiscard]] std::int64_t tokens() const { return static_cast<std::int64_t>(feedback_.tokens.size()); }

    /// All of it; nothing is owed any more.
    [[nodiscard]] SequenceFeedback take();

private:
    SequenceFeedback feedback_;         ///< `features` apart
    std::vector<at::Tensor> features_;  ///< round by round
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/draft/detail/owed_sequence-inl.hpp>
#endif
