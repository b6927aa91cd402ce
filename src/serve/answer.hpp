// The requests behind one call of the API, from submission to the last of them, as events for the thread that writes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>

#include "serve/served.hpp"

namespace outrider::serve {

/// New text of a choice, with its token where log-probabilities were asked for, or the choice's end.
struct AnswerEvent {
    std::size_t choice = 0;
    std::string text;
    TokenId token = kNoToken;
    TokenLogprobs logprobs = {};
    std::optional<GenerationResult> result = {};
};

/// Events go through a queue of their own, so that a slow reader never holds up the decoding thread; it grows to the
/// longest text at most. An end comes whatever happens: room for it is made before its request is submitted. What is
/// still decoded when the answer is destroyed is stopped.
class Answer {
public:
    /// Submits `n` choices of every prompt. Throws RequestRefused; then nothing of it is decoded. Without `with_text`,
    /// events are ends alone.
    Answer(Served& served, std::vector<Prompt> prompts, const GenerationOptions& generation, std::int64_t n,
           std::chrono::seconds patience, bool with_text);
    Answer(const Answer&) = delete;
    Answer& operator=(const Answer&) = delete;
    ~Answer() { stop_.request_stop(); }

    /// The next event, if there is one within this time.
    [[nodiscard]] std::optional<AnswerEvent> next(std::chrono::milliseconds patience);

    [[nodiscard]] std::size_t choices() const noexcept { return choices_; }

private:
    /// Lives as long as a callback may come.
    struct Channel {
        std::mutex mutex;
        std::condition_variable news;
        std::list<AnswerEvent> events;
        std::list<AnswerEvent> ends;  ///< room for one of every choice

        void push(AnswerEvent event);
        /// Where memory is too short for the result, the choice has failed for that.
        void end(std::size_t choice, const GenerationResult& result) noexcept;
    };

    [[nodiscard]] AsyncRequest request(std::size_t choice, std::chrono::steady_clock::time_point deadline,
                                       bool with_text) const;

    std::size_t choices_ = 0;
    std::shared_ptr<Channel> channel_ = std::make_shared<Channel>();
    std::stop_source stop_;
};

}  // namespace outrider::serve
