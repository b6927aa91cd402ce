// Bodies of sequence_book.hpp.
#pragma once

#include <outrider/decode/detail/sequence_book.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

#include <outrider/core/detail/translate.hpp>
#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/decode/detail/round_checks.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE SequenceBook::SequenceBook(std::size_t max_batch) : max_batch_(max_batch) {
    require_in(ranges::kBatch, static_cast<std::int64_t>(max_batch_), "DecoderOptions", "max_batch");
}

OUTRIDER_INLINE void SequenceBook::wait(std::unique_ptr<Session> session) {
    const auto room = unfinished_.emplace(session->id(), GenerationResult{}).first;
    try {
        waiting_.push_back(std::move(session));
    } catch (...) {
        unfinished_.erase(room);
        throw;
    }
}

OUTRIDER_INLINE void SequenceBook::admit(const Release& release) {
    while (!waiting_.empty() && active_.size() + prompts_.size() < max_batch_) {
        if (waiting_.front()->ended())  // max_tokens is 0, or a constraint lets nothing follow
            retire(*waiting_.front(), release);
        else
            prompts_.add(waiting_.front());
        waiting_.pop_front();
    }
}

OUTRIDER_INLINE void SequenceBook::took(Feedback told, double seconds) {
    for (const SequenceFeedback& one : told)
        if (Session* session = one.refused ? prompts_.find(one.sequence) : nullptr) refuse(*session, one.refused);
    prompts_.took(std::move(told), seconds);
}

OUTRIDER_INLINE void SequenceBook::activate() {
    prompts_.through(
        [&](std::unique_ptr<Session>& session, SequenceFeedback prompt) {
            active_.reserve(active_.size() + 1);
            owed_.join(std::move(prompt));
            active_.push_back(std::move(session));
        },
        [&](Session& session) { fail_stage(session); });
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
    finish(**it);
    waiting_.erase(it);
    return true;
}

OUTRIDER_INLINE void SequenceBook::cancel_all() {
    for (const auto& session : active_) session->end(FinishReason::cancelled);
    prompts_.each([](Session& session) { session.end(FinishReason::cancelled); });
}

OUTRIDER_INLINE void SequenceBook::leave(const Release& release) noexcept {
    prompts_.leave([&](Session& session) { retire(session, release); });
    for (std::size_t i = 0; i < active_.size();) {
        if (!active_[i]->ended()) {
            ++i;
            continue;
        }
        const std::unique_ptr<Session> session = std::move(active_[i]);
        active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
        owed_.drop(i);
        retire(*session, release);
    }
}

namespace detail {
/// The exception of a stage that is being handled, in the library's words where there is memory for them.
[[nodiscard]] inline std::exception_ptr stage_error() noexcept {
    try {
        return translated(std::current_exception());
    } catch (...) {
        return std::current_exception();
    }
}
}  // namespace detail

template <typename Each>
void SequenceBook::fail_each(Each&& each) noexcept {
    const std::exception_ptr error = detail::stage_error();
    each([&](Session& session) { session.fail(error); });
    note(error);
}

OUTRIDER_INLINE void SequenceBook::fail_stage(Session& session) noexcept {
    fail_each([&](const auto& fail) { fail(session); });
}

OUTRIDER_INLINE void SequenceBook::fail_round() noexcept {
    fail_each([&](const auto& fail) {
        for (const auto& session : active_) fail(*session);
    });
}

OUTRIDER_INLINE void SequenceBook::fail_prompts() noexcept {
    fail_each([&](const auto& fail) { prompts_.each_in_step(fail); });
}

OUTRIDER_INLINE void SequenceBook::fail_intake() noexcept {
    fail_each([&](const auto& fail) {
        if (prompts_.size() == 0 && !waiting_.empty()) fail(*waiting_.front());
        prompts_.each(fail);
    });
}

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

OUTRIDER_INLINE void SequenceBook::note_stage_error() noexcept { note(detail::stage_error()); }

OUTRIDER_INLINE void SequenceBook::fail(Session& session) noexcept {
    session.fail(std::current_exception());
    note_error();
}

OUTRIDER_INLINE void SequenceBook::finish(Session& session) noexcept {
    auto room = unfinished_.extract(session.id());
    room.mapped() = session.finish();
    finished_.insert(std::move(room));
}

OUTRIDER_INLINE void SequenceBook::retire(Session& session, const Release& release) noexcept {
    const SequenceId id = session.id();
    finish(session);
    try {
        release(id, finished_.at(id).finish != FinishReason::failed);
    } catch (...) {
        note_stage_error();
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
