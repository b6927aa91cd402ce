// Without LibTorch, so that the thread sanitizer can run it (preset threads).
#include <catch2/catch_all.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include <outrider/decode/async_decoder.hpp>

#include "toy_decoder.hpp"

using namespace outrider;
using namespace outrider::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Steady = std::chrono::steady_clock;

namespace {

static_assert(SteppedDecoder<ToyDecoder>);

/// Holds the decoding thread in a callback until it is opened, so that what comes next waits in the queue.
class Gate {
public:
    [[nodiscard]] AsyncRequest request() {
        AsyncRequest request;
        request.sink = [this](const EmittedToken&) {
            reached_ = true;
            reached_.notify_all();
            open_.wait(false);
        };
        return request;
    }
    void wait_reached() { reached_.wait(false); }
    void open() {
        open_ = true;
        open_.notify_all();
    }

private:
    std::atomic<bool> reached_ = false, open_ = false;
};

Refusal refusal_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const RequestRefused& refused) {
        return refused.why();
    }
    FAIL("nothing was refused");
    return {};
}

}  // namespace

TEST_CASE("waiting as long as there is comes to its end, and does not end at once", "[async]") {
    ToyDecoder toy;
    toy.pause = std::chrono::microseconds(500);
    AsyncDecoder decoder{std::ref(toy)};
    auto answer = decoder.submit({{1}}, {.max_tokens = 60});
    CHECK(decoder.wait_idle(std::chrono::nanoseconds::max()));
    CHECK(answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready);
}

TEST_CASE("room is left for the cache that grows", "[async]") {
    detail::AsyncQueue queue({.queue = 9, .tokens = 99, .least = 10, .growing = 0.5});
    const auto ticket = [](std::int64_t tokens) {
        auto one = std::make_unique<detail::AsyncTicket>();
        one->tokens = tokens;
        return one;
    };
    CHECK_THROWS_WITH(queue.push(ticket(70)), ContainsSubstring("memory for 66"));
    queue.push(ticket(60)), queue.push(ticket(9));
    const auto large = queue.pop();
    REQUIRE(large);
    CHECK_FALSE(queue.pop());  // 60, 10 and 30 for the growth of the first
    queue.release(*large);
    const auto small = queue.pop();
    REQUIRE(small);
    CHECK(queue.held() == 10);
    for (int i = 0; i < 3; ++i) queue.push(ticket(30));
    const auto first = queue.pop(), second = queue.pop(), third = queue.pop();
    CHECK((first && second && !third));  // 10, 60 and 15; one more would be 115
}

TEST_CASE("requests of many threads get the texts that they get alone", "[async]") {
    AsyncDecoder decoder{ToyDecoder{5}, {.queue = 10'000}};
    std::atomic<int> wrong = 0;
    {
        std::vector<std::jthread> clients;
        for (TokenId c = 0; c < 8; ++c)
            clients.emplace_back([&, c] {
                for (TokenId i = 0; i < 50; ++i) {
                    const std::vector<TokenId> prompt{c, i, 3};
                    std::vector<TokenId> seen;
                    auto future = decoder.submit(
                        {prompt}, {.max_tokens = 1 + i},
                        {.sink = [&](std::span<const TokenId> t) { seen.insert(seen.end(), t.begin(), t.end()); }});
                    const GenerationResult result = future.get();
                    wrong += result.tokens != toy_text(prompt, 1 + i) || seen != result.tokens;
                }
            });
    }
    CHECK(wrong == 0);
    const AsyncMetrics metrics = decoder.metrics();
    CHECK(metrics.submitted == 400);
    CHECK(metrics.length == 400);
    CHECK(metrics.decoded.tokens == 8 * 50 * 51 / 2);
    CHECK(decoder.wait_idle(10s));
    CHECK(decoder.metrics().active == 0);
    CHECK(decoder.metrics().tokens_held == 0);
}

TEST_CASE("a request that fails leaves the others alone, and its exception is kept", "[async]") {
    struct Mine {};
    std::future<GenerationResult> good, unknown, broken, thrown, also_good;
    std::optional<GenerationResult> told;
    {
        AsyncDecoder decoder{ToyDecoder{}};
        good = decoder.submit({{1}}, {.max_tokens = 50});
        unknown = decoder.submit({{ToyDecoder::kBadPrompt}});
        broken = decoder.submit({{ToyDecoder::kBreaks}}, {}, {.ended = [&](const GenerationResult& r) { told = r; }});
        thrown = decoder.submit({{2}}, {.max_tokens = 50}, {.sink = [](const EmittedToken&) { throw Mine{}; }});
        also_good = decoder.submit({{3}}, {.max_tokens = 50}, {.ended = [](const auto&) { throw Mine{}; }});
        CHECK(good.get().tokens == toy_text({1}, 50));
        CHECK(also_good.get().tokens == toy_text({3}, 50));
        REQUIRE(decoder.wait_idle(10s));
        CHECK(decoder.metrics().failed == 3);
        CHECK(decoder.metrics().length == 2);
        CHECK(decoder.metrics().errors >= 2);
    }
    // Exceptions are looked at when the thread is gone: how libstdc++ counts them is hidden from the thread sanitizer.
    CHECK_THROWS_WITH(unknown.get(), ContainsSubstring("no such prompt"));
    CHECK_THROWS_WITH(broken.get(), ContainsSubstring("this one broke"));
    CHECK_THROWS_AS(thrown.get(), Mine);
    REQUIRE(told);
    CHECK(told->finish == FinishReason::failed);
    CHECK(told->exception);
}

TEST_CASE("a stop token ends a text, in the queue and while it is decoded", "[async]") {
    Gate gate;
    AsyncDecoder decoder{ToyDecoder{1}};
    std::stop_source first, second;
    AsyncRequest held = gate.request();
    held.stop = first.get_token();
    auto running = decoder.submit({{1}}, {.max_tokens = 1'000'000}, std::move(held));
    auto waiting = decoder.submit({{2}}, {}, {.stop = second.get_token()});
    gate.wait_reached();
    second.request_stop();
    first.request_stop();
    gate.open();
    const GenerationResult part = running.get();
    CHECK(part.finish == FinishReason::cancelled);
    CHECK(!part.tokens.empty());
    CHECK(part.tokens == toy_text({1}, std::ssize(part.tokens)));
    CHECK(waiting.get().finish == FinishReason::cancelled);
}

TEST_CASE("a deadline ends a text, in the queue and while it is decoded", "[async]") {
    ToyDecoder slow{1};
    slow.pause = 200us;
    AsyncDecoder decoder{std::move(slow)};
    const auto soon = Steady::now() + 30ms;
    auto running = decoder.submit({{1}}, {.max_tokens = 50'000}, {.deadline = soon});
    auto waiting = decoder.submit({{2}}, {}, {.deadline = soon});
    auto patient = decoder.submit({{3}}, {.max_tokens = 2}, {.deadline = Steady::now() + 1h});
    CHECK(running.get().finish == FinishReason::deadline);
    CHECK(Steady::now() >= soon);
    const GenerationResult never = waiting.get();
    CHECK(never.finish == FinishReason::deadline);
    CHECK(never.tokens.empty());
    CHECK(patient.get().finish == FinishReason::length);
    CHECK(decoder.metrics().deadline == 2);
}

TEST_CASE("urgent requests enter first, equal ones in the order they came", "[async]") {
    Gate gate;
    ToyDecoder toy{1};
    std::vector<std::future<GenerationResult>> futures;
    {
        AsyncDecoder decoder{std::ref(toy)};
        futures.push_back(decoder.submit({{9}}, {.max_tokens = 1}, gate.request()));
        gate.wait_reached();
        const std::vector<int> priorities{0, 1, 0, 2, 1};
        for (TokenId i = 0; i < 5; ++i)
            futures.push_back(
                decoder.submit({{i}}, {.max_tokens = 1}, {.priority = priorities[static_cast<std::size_t>(i)]}));
        gate.open();
        REQUIRE(decoder.wait_idle(10s));
    }
    CHECK(toy.order() == std::vector<TokenId>{9, 3, 1, 4, 0, 2});
}

TEST_CASE("the queue is bounded, and a full one says so", "[async]") {
    Gate gate;
    AsyncDecoder decoder{ToyDecoder{1}, {.queue = 2}};
    auto running = decoder.submit({{1}}, {.max_tokens = 3}, gate.request());
    gate.wait_reached();
    auto second = decoder.submit({{2}}, {.max_tokens = 3});
    auto third = decoder.submit({{3}}, {.max_tokens = 3});
    CHECK(decoder.metrics().queued == 2);
    CHECK(refusal_of([&] { (void)decoder.submit({{4}}); }) == Refusal::queue_full);
    CHECK_THROWS_WITH(decoder.submit({{4}}), ContainsSubstring("2 requests wait"));
    CHECK(decoder.metrics().refused == 2);
    gate.open();
    CHECK(third.get().tokens == toy_text({3}, 3));
    CHECK(second.get().tokens == toy_text({2}, 3));
}

TEST_CASE("requests enter as memory allows, and those that never could are refused", "[async]") {
    ToyDecoder toy{8};
    {
        AsyncDecoder decoder{std::ref(toy), {.tokens = 100}};
        CHECK(refusal_of([&] { (void)decoder.submit({{1, 2, 3}}, {.max_tokens = 98}); }) == Refusal::too_large);
        CHECK_THROWS_WITH(decoder.submit({{1, 2, 3}}, {.max_tokens = 98}), ContainsSubstring("101 tokens"));
        std::vector<std::future<GenerationResult>> futures;
        for (TokenId i = 0; i < 20; ++i) futures.push_back(decoder.submit({{i}}, {.max_tokens = 49}));
        for (TokenId i = 0; i < 20; ++i) CHECK(futures[static_cast<std::size_t>(i)].get().tokens == toy_text({i}, 49));
        REQUIRE(decoder.wait_idle(10s));
        CHECK(decoder.metrics().tokens_held == 0);
    }
    CHECK(toy.most_active == 2);
}

TEST_CASE("what a request may hold is bounded by the context", "[async]") {
    AsyncDecoder decoder{ToyDecoder{}, {.tokens = ToyDecoder::kContext}};
    std::stop_source stop;
    auto whole = decoder.submit({{1}}, {.max_tokens = 5 * ToyDecoder::kContext}, {.stop = stop.get_token()});
    stop.request_stop();
    (void)whole.get();
}

TEST_CASE("a closed decoder finishes what it has and takes no more", "[async]") {
    AsyncDecoder decoder{ToyDecoder{2}};
    std::vector<std::future<GenerationResult>> futures;
    for (TokenId i = 0; i < 10; ++i) futures.push_back(decoder.submit({{i}}, {.max_tokens = 20}));
    decoder.close();
    CHECK(refusal_of([&] { (void)decoder.submit({{1}}); }) == Refusal::closed);
    CHECK(decoder.wait_idle(10s));
    for (auto& future : futures) CHECK(future.get().finish == FinishReason::length);
}

TEST_CASE("a decoder that is destroyed ends everything", "[async]") {
    std::vector<std::future<GenerationResult>> futures;
    std::atomic<int> told = 0;
    {
        AsyncDecoder decoder{ToyDecoder{3}};
        for (TokenId i = 0; i < 30; ++i)
            futures.push_back(decoder.submit({{i}}, {.max_tokens = 90'000}, {.ended = [&](const auto&) { ++told; }}));
    }
    CHECK(told == 30);
    for (auto& future : futures) CHECK(future.get().finish == FinishReason::cancelled);
}

TEST_CASE("a decoder that is stopped ends everything, and takes no more", "[async]") {
    AsyncDecoder decoder{ToyDecoder{3}};
    std::vector<std::future<GenerationResult>> futures;
    for (TokenId i = 0; i < 9; ++i) futures.push_back(decoder.submit({{i}}, {.max_tokens = 90'000}));
    decoder.stop();
    CHECK(refusal_of([&] { (void)decoder.submit({{1}}); }) == Refusal::closed);
    for (auto& future : futures) CHECK(future.get().finish == FinishReason::cancelled);
    CHECK(decoder.wait_idle(10s));
    CHECK(decoder.metrics().cancelled == 9);
}

TEST_CASE("what is to be done between rounds waits for the one that runs, and is done before the thread ends",
          "[async]") {
    ToyDecoder toy{2};
    std::future<std::thread::id> last;
    Gate gate;
    {
        AsyncDecoder decoder{std::ref(toy)};
        const auto thread = [](ToyDecoder&) { return std::this_thread::get_id(); };
        CHECK(decoder.between_rounds(thread).get() != std::this_thread::get_id());
        auto text = decoder.submit({{1}}, {.max_tokens = 4}, gate.request());
        gate.wait_reached();
        auto batch = decoder.between_rounds([](ToyDecoder& one) { return one.max_batch(); });
        auto fails = decoder.between_rounds([](ToyDecoder&) { throw std::domain_error("its own"); });
        CHECK(batch.wait_for(5ms) == std::future_status::timeout);
        gate.open();
        CHECK(batch.get() == toy.max_batch());
        CHECK_THROWS_AS(fails.get(), std::domain_error);
        CHECK(text.get().tokens == toy_text({1}, 4));
        last = decoder.between_rounds(thread);
        decoder.stop();
        CHECK(refusal_of([&] { (void)decoder.between_rounds(thread); }) == Refusal::closed);
    }
    CHECK(last.get() != std::this_thread::get_id());
}

TEST_CASE("a callback may submit", "[async]") {
    AsyncDecoder decoder{ToyDecoder{1}};
    std::promise<std::future<GenerationResult>> next;
    auto first = decoder.submit({{1}}, {.max_tokens = 1}, {.ended = [&](const GenerationResult&) {
                                    next.set_value(decoder.submit({{2}}, {.max_tokens = 4}));
                                }});
    CHECK(first.get().finish == FinishReason::length);
    CHECK(next.get_future().get().get().tokens == toy_text({2}, 4));
}

TEST_CASE("threads that submit, stop and give up at random", "[async]") {
    std::atomic<int> wrong = 0, ends = 0;
    std::int64_t taken = 0;
    {
        AsyncDecoder decoder{ToyDecoder{4}, {.queue = 12, .tokens = 400}};
        std::vector<std::jthread> clients;
        for (unsigned c = 0; c < 8; ++c)
            clients.emplace_back([&, c] {
                std::mt19937 random(c);
                for (int i = 0; i < 60; ++i) {
                    const std::vector<TokenId> prompt{static_cast<TokenId>(random() % 90), TokenId(c)};
                    std::stop_source stop;
                    AsyncRequest request{.stop = stop.get_token(), .priority = static_cast<int>(random() % 3)};
                    if (random() % 4 == 0) request.deadline = Steady::now() + std::chrono::microseconds(random() % 500);
                    request.ended = [&](const GenerationResult& r) {
                        ++ends;
                        wrong += r.tokens != toy_text(prompt, std::ssize(r.tokens));
                    };
                    std::future<GenerationResult> future;
                    try {
                        future = decoder.submit({prompt}, {.max_tokens = 1 + std::int64_t(random() % 120)}, request);
                    } catch (const RequestRefused&) {
                        continue;
                    }
                    if (random() % 3 == 0) stop.request_stop();
                    (void)future.get();
                }
            });
        clients.clear();
        const AsyncMetrics metrics = decoder.metrics();
        taken = metrics.submitted;
        CHECK(metrics.submitted + metrics.refused == 8 * 60);
        CHECK(metrics.length + metrics.cancelled + metrics.deadline == metrics.submitted);
        CHECK(metrics.tokens_held == 0);
    }
    CHECK(wrong == 0);
    CHECK(ends == taken);
    CHECK(taken > 0);
}
