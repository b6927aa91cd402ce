// Bodies of sequence_book.hpp.
#pragma once

#include <outrider/decode/detail/sequence_book.hpp>

#include <algorithm>
#include <iterator>
#include <utility>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/option_ranges.hpp>
#include <outrider/decode/detail/round_checks.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE SequenceBook::SequenceBook(std::size_t max_batch) : max_batch_(max_batch) {
    require_in(ranges::kBatch, static_cast<std::int64_t>(max_batch_), "DecoderOptions", "max_batch");
}

OUTRIDER_INLINE SequenceBook::Sessions SequenceBook::next(const Release& release) {
    Sessions joining, done;
    while (!waiting_.empty() && active_.size() + joining.size() < max_batch_) {
        const bool wants_none = waiting_.front()->ended();  // max_tokens is 0
        (wants_none ? done : joining).push_back(std::move(waiting_.front()));
        waiting_.pop_front();
    }
    retire(done, release);
    return joining;
}

OUTRIDER_INLINE void SequenceBook::enter(Sessions& joining, Feedback prompts) {
    check_feedback(prompts, joining);
    for (SequenceFeedback& prompt : prompts) owed_.join(std::move(prompt));
    std::move(joining.begin(), joining.end(), std::back_inserter(active_));
}

OUTRIDER_INLINE bool SequenceBook::cancel(SequenceId id) {
    const auto is_it = [id](const auto& session) { return session->id() == id; };
    if (const auto it = std::find_if(active_.begin(), active_.end(), is_it); it != active_.end()) {
        (*it)->end(FinishReason::cancelled);
        return true;
    }
    const auto it = std::find_if(waiting_.begin(), waiting_.end(), is_it);
    if (it == waiting_.end()) return false;
    (*it)->end(FinishReason::cancelled);
    finished_.emplace(id, (*it)->finish());
    waiting_.erase(it);
    return true;
}

OUTRIDER_INLINE void SequenceBook::leave(const Release& release) {
    std::vector<bool> ended(active_.size());
    for (std::size_t i = 0; i < active_.size(); ++i) ended[i] = active_[i]->ended();
    if (std::find(ended.begin(), ended.end(), true) == ended.end()) return;
    Sessions leaving, staying;
    for (std::size_t i = 0; i < active_.size(); ++i) (ended[i] ? leaving : staying).push_back(std::move(active_[i]));
    active_ = std::move(staying);
    owed_.drop(ended);
    retire(leaving, release);
}

OUTRIDER_INLINE void SequenceBook::fail(const Sessions& sessions) {
    const std::exception_ptr error = detail::translated(std::current_exception());  // of a stage
    for (const auto& session : sessions) session->fail(error);
    note(error);
}

OUTRIDER_INLINE void SequenceBook::fail(Session& session) {
    session.fail(std::current_exception());
    note_error();
}

OUTRIDER_INLINE void SequenceBook::retire(Sessions& leaving, const Release& release) {
    for (const auto& session : leaving) {
        finished_.emplace(session->id(), session->finish());
        try {
            release(session->id());
        } catch (...) {
            note_error();
        }
    }
}

OUTRIDER_INLINE std::vector<SequenceId> SequenceBook::ended() const {
    std::vector<SequenceId> ids;
    for (const auto& [id, result] : finished_) ids.push_back(id);
    return ids;
}

OUTRIDER_INLINE GenerationResult SequenceBook::take(SequenceId id) {
    auto node = finished_.extract(id);
    require(!node.empty(), "SpeculativeDecoder: no result of sequence {}; it has not ended, or was taken", id);
    return std::move(node.mapped());
}

OUTRIDER_INLINE budget::RoundReport SequenceBook::account(const StageSeconds& times) {
    budget::RoundReport report{active_.size(), 0, 0, times.draft, times.verify + times.commit};
    const double share = 1.0 / static_cast<double>(active_.size());
    for (const auto& session : active_) {
        StageSeconds& sum = session->stats().seconds;
        sum.draft += share * times.draft, sum.verify += share * times.verify;
        sum.accept += share * times.accept, sum.commit += share * times.commit;
        sum.other += share * times.other;
        report.drafted += session->drafted(), report.accepted += session->kept();
    }
    return report;
}

}  // namespace outrider
