// A decoder's sequences from join to take: those that wait, those whose prompts enter, those that are decoded, and the
// results of those that ended.
#pragma once

#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <outrider/budget/detail/asking.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/decode/detail/owed_feedback.hpp>
#include <outrider/decode/detail/prompt_intake.hpp>
#include <outrider/decode/detail/session.hpp>

namespace outrider {

/// The active sequences and what is owed to the drafter for each stand in one order, that of joining, and stay in step.
class OUTRIDER_API SequenceBook {
public:
    using Sessions = std::vector<std::unique_ptr<Session>>;
    /// Frees what drafter and target hold of a sequence; where it ended well, its text may be kept. What it throws is
    /// noted.
    using Release = std::function<void(SequenceId, bool well)>;

    explicit SequenceBook(std::size_t max_batch);

    void wait(std::unique_ptr<Session> session);

    /// The prompts of those that wait begin to enter, as far as there is room. Requests for no token at all end here.
    void admit(const Release& release);

    /// What the verifier says of the prompts' pieces (PromptIntake).
    void took(Feedback told, double seconds);
    /// Sequences whose prompts are through become active.
    void activate();

    /// Ends a sequence: in the list of those that wait at once, else at the next `leave`. False when there is none.
    bool cancel(SequenceId id);
    /// Ends those that the target knows.
    void cancel_all();

    /// The sequences that have ended leave. Takes no memory, so that it can follow any fault.
    void leave(const Release& release) noexcept;

    /// Ends sessions, unless they have, with the exception that is being handled, and notes it: the active ones, those
    /// whose prompts have a piece at hand, or one.
    void fail_round() noexcept;
    void fail_prompts() noexcept;
    /// The same for those that enter, or where there are none, the first that waits.
    void fail_intake() noexcept;
    void fail(Session& session) noexcept;
    /// The same for one session and an exception of a stage.
    void fail_stage(Session& session) noexcept;
    /// The same for one that the target refuses, which null does not, and for those among the active ones that this
    /// feedback refuses.
    bool refuse(Session& session, const std::exception_ptr& why);
    void refuse(const Feedback& told);

    [[nodiscard]] bool finished(SequenceId id) const { return finished_.contains(id); }
    /// Those whose results wait to be taken, in no order.
    [[nodiscard]] std::vector<SequenceId> ended() const;
    /// Prompt and text so far of a sequence that has not been taken. Throws Error when there is none.
    [[nodiscard]] std::vector<TokenId> text_of(SequenceId id);
    /// Throws Error when there is no such result.
    [[nodiscard]] GenerationResult take(SequenceId id);

    /// The first exception since the last call; null: none.
    [[nodiscard]] std::exception_ptr first_error() noexcept { return std::exchange(first_error_, nullptr); }
    /// Notes the exception of a stage that is being handled, unless an earlier one is.
    void note_stage_error() noexcept;
    /// The same for one that comes back as it is.
    void note_error() noexcept { note(std::current_exception()); }
    void note(std::exception_ptr error) noexcept {
        if (!first_error_) first_error_ = std::move(error);
    }

    [[nodiscard]] const Sessions& active() const noexcept { return active_; }
    [[nodiscard]] OwedFeedback& owed() noexcept { return owed_; }
    [[nodiscard]] PromptIntake& prompts() noexcept { return prompts_; }
    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_.size() + prompts_.size(); }
    [[nodiscard]] std::size_t max_batch() const noexcept { return max_batch_; }
    [[nodiscard]] bool empty() const noexcept { return active_.empty() && waiting() == 0; }

    /// Shares a round's time among the active sequences.
    [[nodiscard]] budget::RoundReport account(const StageSeconds& times);

private:
    template <typename Each>
    void fail_each(Each&& each) noexcept;
    void finish(Session& session) noexcept;
    void retire(Session& session, const Release& release) noexcept;

    std::size_t max_batch_;
    PromptIntake prompts_;
    Sessions active_;
    OwedFeedback owed_;                                  ///< of active_: what the drafter learns next
    std::deque<std::unique_ptr<Session>> waiting_;       ///< joined, nothing of them in the target
    std::map<SequenceId, GenerationResult> unfinished_;  ///< room for the results of all that have not ended
    std::map<SequenceId, GenerationResult> finished_;
    std::exception_ptr first_error_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/decode/detail/sequence_book-inl.hpp>
#endif
