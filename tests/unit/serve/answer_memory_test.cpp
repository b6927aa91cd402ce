// Allocations that fail, each in its turn, in the callbacks of a request: whoever waits for its end hears of it.
#include <catch2/catch_all.hpp>

#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>

#include "serve/answer.hpp"
#include "short_memory.hpp"
#include "toy_server.hpp"

using namespace outrider;
using namespace outrider::serve;
using namespace outrider::test;
using namespace std::chrono_literals;

namespace {

/// Arms the decoding thread while it calls back.
struct ArmedServed : ToyServed {
    explicit ArmedServed(std::int64_t at) : left(at) {}

    void submit(Prompt prompt, GenerationOptions options, AsyncRequest request) override {
        if (request.sink.wants_text() || with_sink)
            request.sink = [this, sink = request.sink](const EmittedToken& token) mutable {
                return armed([&] { return sink(token); });
            };
        request.ended = [this, ended = request.ended](const GenerationResult& result) {
            armed([&] { return ended(result), true; });
        };
        ToyServed::submit(std::move(prompt), std::move(options), std::move(request));
    }

    template <typename Call>
    bool armed(Call call) {
        allocations_left = left;
        try {
            const bool more = call();
            left = std::exchange(allocations_left, -1);
            return more;
        } catch (...) {
            left = std::exchange(allocations_left, -1);
            throw;
        }
    }

    std::int64_t left;
    bool with_sink = false;
};

}  // namespace

TEST_CASE("memory that is short in a callback loses no end of an answer", "[serve][faults]") {
    for (const bool stream : {false, true}) {
        std::int64_t at = 0, failed = 0;
        for (bool reached = true; reached && at < 5000; ++at) {
            CAPTURE(stream, at);
            ArmedServed served(at);
            served.with_sink = stream;
            Prompt prompt{tokens_of("a prompt")};
            prompt.text = std::make_shared<ToyDetokenizer>();
            const GenerationOptions options{.max_tokens = 40};
            {
                Answer answer(served, {prompt}, options, 2, 60s, stream);
                for (int ends = 0; ends < 2;) {
                    const auto event = answer.next(60s);
                    REQUIRE(event);
                    if (!event->result) continue;
                    ++ends;
                    if (event->result->finish == FinishReason::failed) {
                        REQUIRE(event->result->exception);
                        ++failed;
                    } else {
                        REQUIRE(event->result->tokens == toy_text(prompt.tokens, 40));
                    }
                }
            }
            REQUIRE(served.wait_idle());
            reached = served.left < 0;
        }
        CHECK(failed > 0);
        CHECK(at > 2);
        CHECK(at < 5000);
    }
}
