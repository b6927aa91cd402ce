// Bodies of sequence_book.hpp.
#pragma once

#include <outrider/decode/detail/sequence_book.hpp>

#include <algorithm>
#include <array>
#include <iterator>
#include <utility>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/decode/detail/round_checks.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE SequenceBook::SequenceBook(std::size_t max_batch) : max_batch_(max_batch) {
    require_in(ranges::kBatch, static_cast<std::int64_t>(max_batch_), "DecoderOptions", "max_batch");
}

OUTRIDER_INLINE void SequenceBook::admit(const Release& release) {
    Sessions done;
    while (!waiting_.empty() && active_.size() + prompts_.size() < max_batch_) {
        std::unique_ptr<Session> session = std::move(waiting_.front());
        waiting_.pop_front();
        if (session->ended())  // max_tokens is 0
            done.push_back(std::move(session));
        else
            prompts_.add(std::move(session));
    }
    retire(done, release);
}

OUTRIDER_INLINE void SequenceBook::took(Feedback told, double seconds) {
    for (const SequenceFeedback& one : told)
        if (Session* session = one.refused ? prompts_.find(one.sequence) : nullptr) refuse(*session, one.refused);
    prompts_.took(std::move(told), seconds);
}

OUTRIDER_INLINE void SequenceBook::activate() {
    auto [sessions, feedback] = prompts_.through();
    for (SequenceFeedback& prompt : feedback) owed_.join(std::move(prompt));
    std::move(sessions.begin(), sessions.end(), std::back_inserter(active_));
}

OUTRIDER_INLINE bool SequenceBook::cancel(SequenceId id) {
    const auto is_it = [id](const auto& session) { return session->id() == id; };
    if (const auto it = std::find_if(active_.begin(), active_.end(), is_it); it != active_.end()) {
        (*it)->end(FinishReason::cancelled);
        return true;
    }
    if (Session* entering = prompts_.find(id)) {
        entering->end(FinishReason::cancelled);
        return true;
    }
    const auto it = std::find_if(waiting_.begin(), waiting_.end(), is_it);
    if (it == waiting_.end()) return false;
    (*it)->end(FinishReason::cancelled);
    finished_.emplace(id, (*it)->finish());
    waiting_.erase(it);
    return true;
}

OUTRIDER_INLINE void SequenceBook::cancel_all() {
    for (const auto& session : active_) session->end(FinishReason::cancelled);
    prompts_.end_all(FinishReason::cancelled);
}

OUTRIDER_INLINE void SequenceBook::leave(const Release& release) {
    Sessions leaving = prompts_.ended();
    std::vector<bool> ended(active_.size());
    for (std::size_t i = 0; i < active_.size(); ++i) ended[i] = active_[i]->ended();
    if (std::find(ended.begin(), ended.end(), true) != ended.end()) {
        Sessions staying;
        for (std::size_t i = 0; i < active_.size(); ++i)
            (ended[i] ? leaving : staying).push_back(std::move(active_[i]));
        active_ = std::move(staying);
        owed_.drop(ended);
    }
    retire(leaving, release);
}

template <typename Those>
void SequenceBook::fail_all(const Those& sessions) {
    const std::exception_ptr error = detail::translated(std::current_exception());  // of a stage
    for (const auto& session : sessions) session->fail(error);
    note(error);
}

OUTRIDER_INLINE void SequenceBook::fail_stage(Session& session) { fail_all(std::array{&session}); }

OUTRIDER_INLINE bool SequenceBook::refuse(Session& session, const std::exception_ptr& why) {
    if (!why) return false;
    const std::exception_ptr error = detail::translated(why);
    session.fail(error);
    note(error);
    return true;
}

OUTRIDER_INLINE void SequenceBook::refuse(const Feedback& told) {
    for (std::size_t i = 0; i < told.size(); ++i) refuse(*active_[i], told[i].refused);
}

OUTRIDER_INLINE void SequenceBook::note_stage_error() noexcept {
    try {
        note(detail::translated(std::current_exception()));
    } catch (...) {
        note_error();
    }
}

OUTRIDER_INLINE void SequenceBook::fail_round() { fail_all(active_); }

OUTRIDER_INLINE void SequenceBook::fail_prompts() { fail_all(prompts_.in_step()); }

OUTRIDER_INLINE void SequenceBook::fail(Session& session) {
    session.fail(std::current_exception());
    note_error();
}

OUTRIDER_INLINE void SequenceBook::retire(Sessions& leaving, const Release& release) {
    for (const auto& session : leaving) {
        GenerationResult result = session->finish();
        const bool well = result.finish != FinishReason::failed;
        finished_.emplace(session->id(), std::move(result));
        try {
            release(session->id(), well);
        } catch (...) {
            note_stage_error();
        }
    }
}

OUTRIDER_INLINE std::vector<SequenceId> SequenceBook::ended() const {
    std::vector<SequenceId> ids;
    for (const auto& [id, result] : finished_) ids.push_back(id);
    return ids;
}

OUTRIDER_INLINE std::vector<TokenId> SequenceBook::text_of(SequenceId id) {
    const Session* found = prompts_.find(id);
    for (const auto& session : active_)
        if (session->id() == id) found = session.get();
    for (const auto& session : waiting_)
        if (session->id() == id) found = session.get();
    if (found != nullptr) return {found->text().begin(), found->text().end()};
    const auto ended = finished_.find(id);
    require(ended != finished_.end(), "SpeculativeDecoder: no sequence {}; it never was, or was taken", id);
    std::vector<TokenId> text = ended->second.prompt;
    text.insert(text.end(), ended->second.tokens.begin(), ended->second.tokens.end());
    return text;
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
