#include "serve/answer.hpp"

#include <exception>
#include <utility>

#include <outrider/decode/detail/async_queue.hpp>

#include "engine/prompt_stream.hpp"

namespace outrider::serve {

void Answer::Channel::push(AnswerEvent event) {
    std::list<AnswerEvent> one;
    one.push_back(std::move(event));
    {
        const std::scoped_lock lock(mutex);
        events.splice(events.end(), one);
    }
    news.notify_one();
}

void Answer::Channel::end(std::size_t choice, const GenerationResult& result) noexcept {
    {
        const std::scoped_lock lock(mutex);
        AnswerEvent& event = ends.front();
        event.choice = choice;
        try {
            event.result = result;
        } catch (...) {
            event.result = outrider::detail::failure(std::current_exception());
        }
        events.splice(events.end(), ends, ends.begin());
    }
    news.notify_one();
}

Answer::Answer(Served& served, std::vector<Prompt> prompts, const GenerationOptions& generation, std::int64_t n,
               std::chrono::seconds patience, bool with_text) {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    try {
        for (const Prompt& prompt : prompts)
            for (std::int64_t i = 0; i < n; ++i) {
                GenerationOptions options = generation;
                options.stream = detail::prompt_stream(prompt, static_cast<std::uint64_t>(i));
                served.submit(prompt, std::move(options), request(choices_, deadline, with_text));
                ++choices_;
            }
    } catch (...) {
        stop_.request_stop();  // no destructor will
        throw;
    }
}

AsyncRequest Answer::request(std::size_t choice, std::chrono::steady_clock::time_point deadline, bool with_text) const {
    {
        const std::scoped_lock lock(channel_->mutex);
        channel_->ends.emplace_back();
    }
    AsyncRequest request;
    if (with_text)
        request.sink = [channel = channel_, choice](const EmittedToken& emitted) {
            if (emitted.logprobs != nullptr)
                channel->push({choice, std::string(emitted.text), emitted.token, *emitted.logprobs});
            else if (!emitted.text.empty())
                channel->push({choice, std::string(emitted.text)});
        };
    request.stop = stop_.get_token();
    request.deadline = deadline;
    request.ended = [channel = channel_, choice](const GenerationResult& result) { channel->end(choice, result); };
    return request;
}

std::optional<AnswerEvent> Answer::next(std::chrono::milliseconds patience) {
    std::unique_lock lock(channel_->mutex);
    if (!channel_->news.wait_for(lock, patience, [&] { return !channel_->events.empty(); })) return std::nullopt;
    AnswerEvent event = std::move(channel_->events.front());
    channel_->events.pop_front();
    return event;
}

}  // namespace outrider::serve
