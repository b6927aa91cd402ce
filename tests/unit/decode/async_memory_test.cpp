// Allocations that fail, each in its turn, on the decoding thread of AsyncDecoder: every request ends once, and those
// that it did not serve have their whole texts.
#include <catch2/catch_all.hpp>

#include <chrono>
#include <future>
#include <utility>
#include <vector>

#include <outrider/decode/async_decoder.hpp>

#include "short_memory.hpp"
#include "toy_decoder.hpp"

using namespace outrider;
using namespace outrider::test;
using namespace std::chrono_literals;

namespace {

/// Arms the decoding thread in its first step. Its own steps never fail: what is tried is what stands around them.
struct ArmedDecoder : ToyDecoder {
    explicit ArmedDecoder(std::int64_t at) : ToyDecoder(3), left(at) {}

    template <typename Call>
    auto unarmed(Call call) {
        if (armed) left = allocations_left;
        armed = true;
        allocations_left = -1;
        auto result = call();
        allocations_left = left;
        return result;
    }

    SequenceId join(Prompt prompt, GenerationOptions options, Sink sink) {
        return unarmed([&] { return ToyDecoder::join(std::move(prompt), std::move(options), std::move(sink)); });
    }
    Outcome try_step() {
        return unarmed([&] { return ToyDecoder::try_step(); });
    }
    bool cancel(SequenceId id) {
        return unarmed([&] { return ToyDecoder::cancel(id); });
    }

    [[nodiscard]] std::vector<SequenceId> ended() const {
        if (armed) left = allocations_left;
        return ToyDecoder::ended();
    }

    mutable std::int64_t left;
    bool armed = false;
};

}  // namespace

TEST_CASE("memory that is short on the decoding thread loses no request", "[async][faults]") {
    std::int64_t at = 0, failed = 0;
    for (bool reached = true; reached && at < 5000; ++at) {
        CAPTURE(at);
        ArmedDecoder toy(at);
        {
            AsyncDecoder decoder{std::ref(toy), {.tokens = 60}};
            std::vector<std::future<GenerationResult>> futures;
            std::stop_source stop;
            for (TokenId i = 0; i < 7; ++i)
                futures.push_back(decoder.submit({{i}}, {.max_tokens = 9 + i},
                                                 {.stop = i == 5 ? stop.get_token() : std::stop_token{}}));
            stop.request_stop();
            REQUIRE(decoder.wait_idle(60s));
            const AsyncMetrics metrics = decoder.metrics();
            REQUIRE(metrics.submitted == metrics.length + metrics.cancelled + metrics.failed);
            REQUIRE(metrics.tokens_held == 0);
            for (TokenId i = 0; i < 7; ++i) try {
                    const GenerationResult result = futures[static_cast<std::size_t>(i)].get();
                    if (i != 5) REQUIRE(result.tokens == toy_text({i}, 9 + i));
                } catch (const std::bad_alloc&) {
                    ++failed;
                }
        }
        reached = toy.left < 0;  // its last `ended` was asked when the thread had done everything else
    }
    WARN(at << " allocations, " << failed << " requests ended by one");
    CHECK(at > 10);
    CHECK(at < 5000);
}
