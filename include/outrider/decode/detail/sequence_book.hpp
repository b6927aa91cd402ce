// A decoder's sequences from join to take: those that wait, those that are decoded, and the results of those that
// ended.
#pragma once

#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/budget/asking.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/decode/detail/owed_feedback.hpp>
#include <outrider/decode/detail/session.hpp>

namespace outrider {

/// The active sequences and what is owed to the drafter for each stand in one order, that of joining, and stay in step.
class OUTRIDER_API SequenceBook {
public:
    using Sessions = std::vector<std::unique_ptr<Session>>;
    /// Frees what drafter and target hold of a sequence. What it throws is noted.
    using Release = std::function<void(SequenceId)>;

    explicit SequenceBook(std::size_t max_batch);

    void wait(std::unique_ptr<Session> session) { waiting_.push_back(std::move(session)); }

    /// Those that wait, as far as there is room for them. Requests for no token at all end here.
    [[nodiscard]] Sessions next(const Release& release);

    /// Makes sequences active. Throws Error when the feedback of their prompts does not fit them.
    void enter(Sessions& joining, Feedback prompts);

    /// Ends a sequence: in the list of those that wait at once, else at the next `leave`. False when there is none.
    bool cancel(SequenceId id);

    /// The active sequences that have ended leave.
    void leave(const Release& release);

    /// Ends these sessions, unless they have, with the exception that is being handled; and notes it.
    void fail(const Sessions& sessions);
    void fail(Session& session);
    /// Keeps the results of sequences that are not active (any more).
    void retire(Sessions& leaving, const Release& release);

    [[nodiscard]] bool finished(SequenceId id) const { return finished_.contains(id); }
    /// Those whose results wait to be taken, in no order.
    [[nodiscard]] std::vector<SequenceId> ended() const;
    /// Throws Error when there is no such result.
    [[nodiscard]] GenerationResult take(SequenceId id);
    void forget(SequenceId id) { finished_.erase(id); }

    /// The first exception since the last call; null: none.
    [[nodiscard]] std::exception_ptr first_error() noexcept { return std::exchange(first_error_, nullptr); }
    /// Notes the exception that is being handled, unless an earlier one is.
    void note_error() noexcept { note(std::current_exception()); }
    void note(std::exception_ptr error) noexcept {
        if (!first_error_) first_error_ = std::move(error);
    }

    [[nodiscard]] const Sessions& active() const noexcept { return active_; }
    [[nodiscard]] OwedFeedback& owed() noexcept { return owed_; }
    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size(); }
    [[nodiscard]] std::size_t max_batch() const noexcept { return max_batch_; }
    [[nodiscard]] bool empty() const noexcept { return active_.empty() && waiting_.empty(); }

    /// Shares a round's time among the active sequences.
    [[nodiscard]] budget::RoundReport account(const StageSeconds& times);

private:
    std::size_t max_batch_;
    Sessions active_;
    OwedFeedback owed_;                             ///< of active_: what the drafter learns next
    std::deque<std::unique_ptr<Session>> waiting_;  ///< joined, not yet prefilled
    std::unordered_map<SequenceId, GenerationResult> finished_;
    std::exception_ptr first_error_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/sequence_book-inl.hpp>
#endif
