// Bodies of owed_feedback.hpp.
#pragma once

#include <outrider/decode/detail/owed_feedback.hpp>

#include <limits>
#include <utility>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE void OwedFeedback::join(SequenceFeedback first) {
    OwedSequence owed;
    owed.add(std::move(first));
    owed_.push_back(std::move(owed));
}

OUTRIDER_INLINE void OwedFeedback::add(Feedback committed) {
    OUTRIDER_ASSERT(committed.size() == owed_.size());
    for (std::size_t i = 0; i < committed.size(); ++i) owed_[i].add(std::move(committed[i]));
}

OUTRIDER_INLINE std::vector<std::int64_t> OwedFeedback::tokens() const {
    std::vector<std::int64_t> count;
    count.reserve(owed_.size());
    for (const OwedSequence& owed : owed_) count.push_back(owed.tokens());
    return count;
}

OUTRIDER_INLINE std::vector<std::size_t> OwedFeedback::beyond(std::int64_t bound) const {
    std::vector<std::size_t> late;
    for (std::size_t i = 0; i < owed_.size(); ++i)
        if (owed_[i].tokens() > bound) late.push_back(i);
    return late;
}

OUTRIDER_INLINE Feedback OwedFeedback::take(std::span<const std::size_t> which) {
    return take(which, std::numeric_limits<std::int64_t>::max());
}

OUTRIDER_INLINE Feedback OwedFeedback::take(std::span<const std::size_t> which, std::int64_t most) {
    Feedback taken;
    taken.reserve(which.size());
    for (const std::size_t i : which) taken.push_back(owed_[i].take(most));
    return taken;
}

OUTRIDER_INLINE void OwedFeedback::drop(std::size_t which) noexcept {
    owed_.erase(owed_.begin() + static_cast<std::ptrdiff_t>(which));
}

}  // namespace outrider
