// What the target committed and the drafter has not seen yet, sequence by sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/draft/detail/owed_sequence.hpp>

namespace outrider {

/// A drafter that is not asked every round gets the feedback of the rounds between as one. Entries stand in the order
/// in which the sequences joined.
class OUTRIDER_API OwedFeedback {
public:
    /// A sequence's first feedback: its prompt. Where it throws, nothing has changed.
    void join(SequenceFeedback first);

    /// A round's feedback, one entry for each sequence in order.
    void add(Feedback committed);

    /// Tokens owed, for each sequence.
    [[nodiscard]] std::vector<std::int64_t> tokens() const;

    /// Indices of the sequences that are owed more than so many tokens.
    [[nodiscard]] std::vector<std::size_t> beyond(std::int64_t bound) const;

    /// The whole feedback of these sequences (indices, in the order given); nothing is owed to them any more.
    [[nodiscard]] Feedback take(std::span<const std::size_t> which);
    /// The same, but of each no more than its first `most` tokens.
    [[nodiscard]] Feedback take(std::span<const std::size_t> which, std::int64_t most);

    /// Forgets one (its index); those after it move up.
    void drop(std::size_t which) noexcept;

private:
    std::vector<OwedSequence> owed_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/owed_feedback-inl.hpp>
#endif
