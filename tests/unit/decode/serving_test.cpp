// What a server needs of the loop: steps that do not throw, exceptions by sequence, many threads.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <atomic>
#include <functional>
#include <future>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <outrider/decode/async_decoder.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

const FakeLaw kLaw{.order = 3};

std::vector<TokenId> alone(const std::vector<TokenId>& prompt, const GenerationOptions& options) {
    SpeculativeDecoder plain{NoDraft{}, FakeTarget{kLaw}};
    return plain.generate({prompt}, options).tokens;
}

}  // namespace

TEST_CASE("a step that does not throw keeps each sequence's exception in its result", "[decode]") {
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, {.nodes = 4}};
    const SequenceId good = decoder.join({{1, 2}}, {.max_tokens = 9});
    const SequenceId bad = decoder.join({{1, 3}}, {.max_tokens = 9},
                                        [](const EmittedToken&) { throw std::out_of_range("not this token"); });
    const StepOutcome first = decoder.try_step();
    CHECK(first.more);
    CHECK(first.error);
    CHECK(decoder.ended() == std::vector<SequenceId>{bad});
    const GenerationResult failed = decoder.take(bad);
    CHECK(failed.finish == FinishReason::failed);
    CHECK(failed.error == "not this token");
    REQUIRE(failed.exception);
    CHECK_THROWS_AS(std::rethrow_exception(failed.exception), std::out_of_range);
    StepOutcome next{.more = true, .error = {}};
    while (next.more) CHECK_FALSE((next = decoder.try_step()).error);
    CHECK(decoder.ended() == std::vector<SequenceId>{good});
    CHECK(decoder.take(good).tokens == alone({1, 2}, {.max_tokens = 9}));
    CHECK(decoder.ended().empty());
}

TEST_CASE("a target that breaks ends those that were decoded, and its exception is theirs", "[decode]") {
    FakeTarget target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target)};
    const SequenceId one = decoder.join({{1, 2}});
    target.throw_in_verify = true;
    CHECK(decoder.try_step().error);
    const GenerationResult result = decoder.take(one);
    REQUIRE(result.exception);
    CHECK_THROWS_AS(std::rethrow_exception(result.exception), Error);
    CHECK(target.held() == 0);
    target.throw_in_verify = false;
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 9}).tokens == alone({1, 2}, {.max_tokens = 9}));
}

TEST_CASE("the decoder itself behind many threads", "[decode][async]") {
    std::atomic<int> wrong = 0;
    FakeTarget target(kLaw);
    {
        AsyncDecoder decoder{SpeculativeDecoder{NgramDraft{}, std::ref(target), {.nodes = 6, .max_batch = 4}},
                             {.queue = 1000, .tokens = 300}};
        CHECK_THROWS_AS(decoder.submit({{1}}, {.max_tokens = 300}), RequestRefused);
        CHECK_THROWS_WITH(decoder.submit({{99}}, {.max_tokens = 3}).get(), ContainsSubstring("vocabulary"));
        std::vector<std::jthread> clients;
        for (TokenId c = 0; c < 4; ++c)
            clients.emplace_back([&, c] {
                for (TokenId i = 0; i < 12; ++i) {
                    const std::vector<TokenId> prompt{c, i, 1};
                    const GenerationOptions options{.max_tokens = 20 + i, .temperature = i % 2 * 0.8, .seed = 5};
                    wrong += decoder.submit({prompt}, options).get().tokens != alone(prompt, options);
                }
            });
    }
    CHECK(wrong == 0);
    CHECK(target.held() == 0);
}
