// One decoder for many threads: requests come from any of them, one thread decodes.
//
//     AsyncDecoder decoder{AnyDecoder{...}, {.queue = 64, .tokens = 200'000}};
//     std::stop_source stop;
//     auto answer = decoder.submit(model.chat("Why?"), {.max_tokens = 128}, {.sink = show, .stop = stop.get_token()});
//     GenerationResult result = answer.get();
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/decode/detail/async_queue.hpp>
#include <outrider/decode/detail/decoder_jobs.hpp>
#include <outrider/decode/detail/stage.hpp>
#include <outrider/decode/detail/target_bounds.hpp>
#include <outrider/decode/request.hpp>

namespace outrider {

/// What AsyncDecoder needs of a decoder: that of every SpeculativeDecoder.
template <typename T>
concept SteppedDecoder =
    requires(T decoder, const T& known, Prompt prompt, GenerationOptions options, Sink sink, SequenceId id) {
        { decoder.join(prompt, options, sink) } -> std::same_as<SequenceId>;
        { decoder.try_step().more } -> std::convertible_to<bool>;
        { decoder.try_step().error } -> std::convertible_to<std::exception_ptr>;
        { decoder.cancel(id) } -> std::convertible_to<bool>;
        { known.ended() } -> std::same_as<std::vector<SequenceId>>;
        { decoder.take(id) } -> std::same_as<GenerationResult>;
        { known.max_batch() } -> std::convertible_to<std::size_t>;
    };

/// Owns a decoding thread. The decoder is held by value, by pointer or by std::ref, as the decoder holds its parts;
/// from the construction on it belongs to that thread. Texts are those that `generate` gives. Public functions may be
/// called from any thread.
///
/// Errors. `submit` throws RequestRefused. Everything else comes through the request's future: what join has against
/// it, what its callback throws, what a stage throws while it is decoded. The other requests go on.
template <typename T>
    requires SteppedDecoder<HeldType<T>>
class AsyncDecoder {
public:
    explicit AsyncDecoder(T decoder, AsyncOptions options = {})
        : held_(std::move(decoder)), queue_(bounded(options)), thread_([this] { run(); }) {}
    AsyncDecoder(const AsyncDecoder&) = delete;
    AsyncDecoder& operator=(const AsyncDecoder&) = delete;
    /// Ends what is left as cancelled, once the round that is running is over.
    ~AsyncDecoder() {
        stop();
        thread_.join();
    }

    /// Queues a request. Throws RequestRefused when the queue is full, when the request alone needs more memory than
    /// there is, and after `close`.
    std::future<GenerationResult> submit(Prompt prompt, GenerationOptions generation = {}, AsyncRequest request = {}) {
        auto ticket = std::make_unique<detail::AsyncTicket>();
        ticket->prompt = std::move(prompt), ticket->generation = std::move(generation);
        ticket->request = std::move(request);
        ticket->tokens = most_tokens(*ticket);
        std::future<GenerationResult> future = ticket->promise.get_future();
        {
            const std::scoped_lock lock(mutex_);
            try {
                if (closed_) throw RequestRefused(Refusal::closed, "AsyncDecoder: it is closed and takes no requests");
                queue_.push(std::move(ticket));
            } catch (...) {
                ++metrics_.refused;
                throw;
            }
            ++metrics_.submitted, ++unsettled_;
        }
        wake_.notify_all();
        return future;
    }

    /// A future of f(decoder), called on the decoding thread between two rounds, which wait for it. Throws
    /// RequestRefused after `stop`.
    template <typename F>
    auto between_rounds(F f) {
        const std::scoped_lock lock(mutex_);
        if (ending_) throw RequestRefused(Refusal::closed, "AsyncDecoder: it is stopped and calls nothing more");
        wake_.notify_all();
        return jobs_.add(std::move(f));
    }

    /// Takes no more requests; those that were taken go on.
    void close() {
        const std::scoped_lock lock(mutex_);
        closed_ = true;
    }

    /// Takes no more requests and ends those that were taken as cancelled, soon. Does not wait.
    void stop() {
        const std::scoped_lock lock(mutex_);
        closed_ = ending_ = true;
        wake_.notify_all();
    }

    /// Waits until no request is left, but not longer than this. Whether none is left.
    bool wait_idle(std::chrono::nanoseconds patience) {
        constexpr std::chrono::nanoseconds kLongest = std::chrono::hours(24 * 365);  // now + more would overflow
        std::unique_lock lock(mutex_);
        return idle_.wait_for(lock, std::min(patience, kLongest), [&] { return unsettled_ == 0; });
    }

    [[nodiscard]] AsyncMetrics metrics() const {
        const std::scoped_lock lock(mutex_);
        AsyncMetrics now = metrics_;
        now.queued = queue_.size();
        now.tokens_held = queue_.held();
        return now;
    }

private:
    using Ticket = detail::AsyncTicketPtr;
    using Decoder = HeldType<T>;
    using Live = std::map<SequenceId, Ticket>;

    [[nodiscard]] Decoder& decoder() { return detail::Held<T>::get(held_); }

    /// What the target says it can hold bounds what the host did not.
    [[nodiscard]] AsyncOptions bounded(AsyncOptions options) {
        if (options.tokens == 0) options.tokens = detail::tokens_of_target(decoder());
        return options;
    }

    /// Prompt and longest text, as far as the target's context goes. Reads what never changes.
    [[nodiscard]] std::int64_t most_tokens(const detail::AsyncTicket& ticket) {
        const std::int64_t context = detail::context_of_target(decoder());
        const auto prompt = static_cast<std::int64_t>(ticket.prompt.tokens.size());
        if (prompt >= context) return prompt;  // join tells
        return prompt + std::clamp<std::int64_t>(ticket.generation.max_tokens, 0, context - prompt);
    }

    /// A turn that memory was too short for is tried again: it has changed nothing. Where the decoder itself is broken,
    /// what it was decoding ends.
    void run() {
        constexpr int kTries = 3;
        for (int failures = 0; wait_for_work();) {
            try {
                turn();
                failures = 0;
            } catch (...) {
                if (++failures >= kTries) failures = 0, give_up(std::current_exception());
                const std::scoped_lock lock(mutex_);
                ++metrics_.errors;
            }
        }
        try {
            for (const auto& [id, ticket] : live_) decoder().cancel(id);
            settle_ended();
        } catch (...) {
            give_up(std::current_exception());
        }
        while (Ticket ticket = next([](detail::AsyncQueue& queue) { return queue.pop_any(); }))
            settle(*ticket, detail::ended_as(FinishReason::cancelled));
        run_jobs();
    }

    void run_jobs() {
        for (const auto& job : next([&](detail::AsyncQueue&) { return jobs_.take(); })) job(decoder());
    }

    /// False when the decoder is being destroyed.
    [[nodiscard]] bool wait_for_work() {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return ending_ || !live_.empty() || !jobs_.empty() || queue_.size() > 0; });
        return !ending_;
    }

    /// One round, and what comes before and after it.
    void turn() {
        run_jobs();
        while (Ticket ticket = next([](detail::AsyncQueue& queue) { return queue.pop_lapsed(); }))
            settle(*ticket, detail::ended_as(ticket->lapsed().value_or(FinishReason::cancelled)));
        admit();
        for (const auto& [id, ticket] : live_)
            if (ticket->lapsed()) decoder().cancel(id);
        settle_ended();
        if (live_.empty()) return;
        const bool failed = decoder().try_step().error != nullptr;
        {
            const std::scoped_lock lock(mutex_);
            ++metrics_.rounds;
            metrics_.errors += failed;
        }
        settle_ended();
    }

    /// Those whose turn it is join the decoder. No lock is held while it prepares them.
    void admit() {
        while (live_.size() < decoder().max_batch()) {
            Live place;  // made first, so that nothing can fail once the decoder has the sequence
            place.emplace(0, nullptr);
            auto node = place.extract(place.begin());
            Ticket& ticket = node.mapped();
            ticket = next([](detail::AsyncQueue& queue) { return queue.pop(); });
            if (!ticket) return;
            const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - ticket->submitted;
            try {
                node.key() = decoder().join(std::move(ticket->prompt), std::move(ticket->generation),
                                            std::move(ticket->request.sink));
                live_.insert(std::move(node));
            } catch (...) {
                retire(*ticket, detail::failure(std::current_exception()));
            }
            const std::scoped_lock lock(mutex_);
            metrics_.queue_seconds += waited.count();
            metrics_.active = live_.size();
        }
    }

    /// Hands on the results of sequences that have ended. Those that others joined to the same decoder are left alone.
    void settle_ended() {
        for (const SequenceId id : decoder().ended()) {
            const auto found = live_.find(id);
            if (found == live_.end()) continue;
            GenerationResult result = decoder().take(id);
            const auto node = live_.extract(found);
            detail::AsyncTicket& ticket = *node.mapped();
            if (result.finish == FinishReason::cancelled) result.finish = ticket.lapsed().value_or(result.finish);
            retire(ticket, std::move(result));
        }
    }

    /// The decoder itself failed: what it was decoding cannot go on.
    void give_up(const std::exception_ptr& error) noexcept {
        for (auto& [id, ticket] : std::exchange(live_, {})) {
            try {
                decoder().cancel(id);
                (void)decoder().take(id);
            } catch (...) {  // it told us already
            }
            retire(*ticket, detail::failure(error));
        }
    }

    template <typename Pop>
    [[nodiscard]] auto next(Pop pop) {
        const std::scoped_lock lock(mutex_);
        return pop(queue_);
    }

    /// Settles one that had entered.
    void retire(detail::AsyncTicket& ticket, GenerationResult result) {
        {
            const std::scoped_lock lock(mutex_);
            queue_.release(ticket);
            metrics_.active = live_.size();
        }
        settle(ticket, std::move(result));
    }

    /// Counted first, so that whoever waits for the future finds it in the metrics.
    void settle(detail::AsyncTicket& ticket, GenerationResult result) {
        {
            const std::scoped_lock lock(mutex_);
            try {
                metrics_.count(result);
            } catch (...) {  // no memory: it is missing in `decoded`
                ++metrics_.errors;
            }
        }
        const bool fine = ticket.settle(std::move(result));
        const std::scoped_lock lock(mutex_);
        metrics_.errors += !fine;
        if (--unsettled_ == 0) idle_.notify_all();
    }

    T held_;
    mutable std::mutex mutex_;  // of the queue, the jobs, the metrics and the two marks
    std::condition_variable wake_, idle_;
    detail::AsyncQueue queue_;
    detail::DecoderJobs<Decoder> jobs_;
    AsyncMetrics metrics_;
    std::int64_t unsettled_ = 0;  // requests taken whose futures are not ready
    bool closed_ = false, ending_ = false;
    Live live_;           // of the decoding thread alone
    std::thread thread_;  // the last: it begins when the others stand
};

template <typename T>
AsyncDecoder(T, AsyncOptions = {}) -> AsyncDecoder<T>;

}  // namespace outrider
