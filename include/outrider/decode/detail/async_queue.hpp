// Requests of an AsyncDecoder that wait, the most urgent first, and the memory that those being decoded may take.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/core/detail/words_of.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/decode/request.hpp>

namespace outrider::detail {

/// The result of a request that has no text.
[[nodiscard]] inline GenerationResult ended_as(FinishReason why) {
    GenerationResult result;
    result.finish = why;
    return result;
}

/// The same, of one that an exception ended.
[[nodiscard]] inline GenerationResult failure(const std::exception_ptr& error) noexcept {
    GenerationResult result = ended_as(FinishReason::failed);
    result.exception = error;
    result.error = words_of(error);
    return result;
}

/// One request from submit to its end.
struct AsyncTicket {
    Prompt prompt;
    GenerationOptions generation;
    AsyncRequest request;
    std::int64_t tokens = 0;  ///< the most that it can hold
    std::promise<GenerationResult> promise = {};
    std::chrono::steady_clock::time_point submitted = std::chrono::steady_clock::now();

    /// Why it has to end though its text goes on; nullopt: it need not.
    [[nodiscard]] std::optional<FinishReason> lapsed() const {
        if (request.stop.stop_requested()) return FinishReason::cancelled;
        if (request.deadline && std::chrono::steady_clock::now() >= *request.deadline) return FinishReason::deadline;
        return std::nullopt;
    }

    /// Hands the result on: to the callback, then to the future. Throws nothing; false where the callback threw.
    bool settle(GenerationResult result) noexcept {
        bool fine = true;
        try {
            if (request.ended) request.ended(result);
        } catch (...) {
            fine = false;
        }
        if (result.exception)
            promise.set_exception(std::move(result.exception));
        else
            promise.set_value(std::move(result));
        return fine;
    }
};
using AsyncTicketPtr = std::unique_ptr<AsyncTicket>;

/// Not thread-safe: AsyncDecoder locks.
class AsyncQueue {
public:
    explicit AsyncQueue(AsyncOptions options) : options_(options) {}

    /// Throws RequestRefused.
    void push(AsyncTicketPtr ticket) {
        ticket->tokens = std::max(ticket->tokens, options_.least);
        if (options_.tokens > 0 && ticket->tokens + growth_of(ticket->tokens) > options_.tokens)
            refuse<std::int64_t>(
                Refusal::too_large,
                "the request may come to hold {} tokens, prompt and text, and there is memory for {} of one text; "
                "shorten the prompt or ask for fewer tokens",
                ticket->tokens, static_cast<std::int64_t>(double(options_.tokens) / (1 + options_.growing)));
        if (waiting_.size() >= options_.queue)
            refuse<std::size_t>(Refusal::queue_full, "{} requests wait, as many as may; try again later",
                                waiting_.size());
        const auto less_urgent = [&](const AsyncTicketPtr& other) {
            return other->request.priority < ticket->request.priority;
        };
        waiting_.insert(std::find_if(waiting_.begin(), waiting_.end(), less_urgent), std::move(ticket));
    }

    /// The next one, if memory is there for it; null otherwise. None overtakes a more urgent one that has to wait, so
    /// that large requests get their turn.
    [[nodiscard]] AsyncTicketPtr pop() {
        if (waiting_.empty()) return nullptr;
        const std::int64_t tokens = waiting_.front()->tokens;
        std::int64_t growing = growth_of(tokens);
        for (const std::int64_t other : each_held_) growing = std::max(growing, growth_of(other));
        if (options_.tokens > 0 && held_ + tokens + growing > options_.tokens) return nullptr;
        each_held_.push_back(tokens);
        held_ += tokens;
        return take(waiting_.begin());
    }

    /// Gives back the memory of one that `pop` gave.
    void release(const AsyncTicket& ticket) noexcept {
        held_ -= ticket.tokens;
        each_held_.erase(std::find(each_held_.begin(), each_held_.end(), ticket.tokens));
    }

    /// One that has to end before its turn; null: none.
    [[nodiscard]] AsyncTicketPtr pop_lapsed() {
        const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                        [](const AsyncTicketPtr& ticket) { return ticket->lapsed().has_value(); });
        return found == waiting_.end() ? nullptr : take(found);
    }

    /// Any one; null: none.
    [[nodiscard]] AsyncTicketPtr pop_any() { return waiting_.empty() ? nullptr : take(waiting_.begin()); }

    [[nodiscard]] std::size_t size() const noexcept { return waiting_.size(); }
    [[nodiscard]] std::int64_t held() const noexcept { return held_; }

private:
    template <typename... Args>
    [[noreturn]] static void refuse(Refusal why, Message<std::type_identity_t<Args>...> text, const Args&... args) {
        throw RequestRefused(why, "AsyncDecoder: " + written<Args...>(text, args...));
    }

    /// A cache that is never larger than the smallest does not grow.
    [[nodiscard]] std::int64_t growth_of(std::int64_t tokens) const {
        return tokens > options_.least ? static_cast<std::int64_t>(options_.growing * double(tokens)) : 0;
    }

    AsyncTicketPtr take(std::vector<AsyncTicketPtr>::iterator it) {
        AsyncTicketPtr ticket = std::move(*it);
        waiting_.erase(it);
        return ticket;
    }

    AsyncOptions options_;
    std::vector<AsyncTicketPtr> waiting_;  // urgent first
    std::int64_t held_ = 0;
    std::vector<std::int64_t> each_held_;  // tokens of those that `pop` gave
};

}  // namespace outrider::detail
