// Allocations that fail, each in its turn, anywhere in the loop: an error that says so, texts as far as they came, and
// nothing is left behind or forgotten.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>

#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "plain_loop.hpp"
#include "short_memory.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

struct Letters final : Detokenizer {
    [[nodiscard]] std::string bytes(TokenId token) const override { return std::string(40, char('a' + token % 26)); }
};

/// Forbids one token, with states that are allocated.
struct NotThis final : Constraint {
    [[nodiscard]] State begin(const ConstraintScope&) const override { return std::make_shared<const int>(0); }
    [[nodiscard]] State next(const State&, TokenId) const override { return std::make_shared<const int>(1); }
    void mask(const State&, std::span<float> logits) const override {
        logits[3] = -std::numeric_limits<float>::infinity();
    }
    [[nodiscard]] bool allows(const State&, TokenId token) const override { return token != 3; }
    [[nodiscard]] std::vector<TokenId> expected(const State&) const override { return {5}; }
};

std::vector<GenerationOptions> requests() {
    std::vector<GenerationOptions> all(4, {.max_tokens = 7, .seed = 3});
    all[1].temperature = 0.8, all[1].logprobs = 2, all[1].stop = {std::string(90, 'c')};
    all[2].constraint = std::make_shared<const NotThis>(), all[2].frequency_penalty = 0.2;
    all[3].logprobs = 0, all[3].logprob_law = LogprobLaw::warped;
    return all;
}

std::vector<TokenId> prompt_of(std::size_t request) { return {static_cast<TokenId>(request), 1, 2, 3, 4, 5, 6}; }

/// What each request says where memory never ends.
std::vector<std::vector<TokenId>> whole_texts(const FakeLaw& law) {
    std::vector<std::vector<TokenId>> texts;
    for (std::size_t i = 0; i < requests().size(); ++i) {
        SpeculativeDecoder decoder{NoDraft{}, FakeTarget{law}, {.nodes = 0}};
        texts.push_back(decoder.generate({prompt_of(i), {}, std::make_shared<Letters>()}, requests()[i]).tokens);
    }
    return texts;
}

struct Outcome {
    bool reached = false;  ///< an allocation failed
    int errors = 0;
};

/// call() with the allocation that stands `left` ahead failing. What it throws must say so.
template <typename Call>
bool short_of_memory(std::int64_t& left, Outcome& outcome, Call&& call) {
    bool more = true;
    allocations_left = left;
    try {
        more = call();
        left = allocations_left, allocations_left = -1;
    } catch (const std::exception& error) {
        left = allocations_left, allocations_left = -1;
        ++outcome.errors;
        const std::string what = error.what();
        CAPTURE(what);
        REQUIRE((what.find("memory") != std::string::npos || what.find("bad_alloc") != std::string::npos));
    }
    if (left < 0) outcome.reached = true;
    return more;
}

}  // namespace

TEST_CASE("an allocation that fails anywhere in a step ends what it served, and nothing is forgotten", "[faults]") {
    const FakeLaw law{.order = 3};
    const auto expected = whole_texts(law);
    int failed = 0, whole = 0;
    std::int64_t at = 0;
    for (bool reached = true; reached; ++at) {
        CAPTURE(at);
        Outcome outcome;
        FakeTarget target(law);
        target.keeps_texts = at % 3 == 0, target.mixes_prompts = at % 2 == 0;
        {
            SpeculativeDecoder decoder{
                RandomDraft{law, 3, 0.6}, std::ref(target), Match{}, {.nodes = 4, .max_batch = 2, .prefill_rows = 4}};
            std::map<SequenceId, std::size_t> joined;
            std::map<SequenceId, std::vector<TokenId>> seen;
            for (std::size_t i = 0; i < expected.size(); ++i)
                joined[decoder.join({prompt_of(i), {}, std::make_shared<Letters>()}, requests()[i],
                                    [&seen](const EmittedToken& t) {
                                        const std::int64_t left = std::exchange(allocations_left, -1);
                                        seen[t.sequence].push_back(t.token);  // the test's own memory
                                        allocations_left = left;
                                    })] = i;
            std::int64_t left = at;
            while (short_of_memory(left, outcome, [&] { return decoder.step(); })) {
            }
            for (const auto& [id, i] : joined) {
                REQUIRE(decoder.finished(id));
                const GenerationResult result = decoder.take(id);
                REQUIRE(result.tokens.size() <= expected[i].size());
                REQUIRE(std::equal(result.tokens.begin(), result.tokens.end(), expected[i].begin()));
                if (result.finish == FinishReason::failed) {
                    REQUIRE(result.exception);
                    ++failed;
                } else {
                    REQUIRE(result.tokens == expected[i]);
                    REQUIRE(seen[id] == result.tokens);
                    ++whole;
                }
            }
            REQUIRE(outcome.errors <= 1);
            REQUIRE(decoder.active() == 0);
            REQUIRE(decoder.waiting() == 0);
            const GenerationResult after = decoder.generate({prompt_of(0)}, requests()[0]);  // and it goes on
            REQUIRE(after.tokens == expected[0]);
        }
        REQUIRE(target.held() == 0);
        reached = outcome.reached;
    }
    WARN(at << " allocations, " << failed << " texts ended by one, " << whole << " whole beside them");
    CHECK(failed > at / 2);
    CHECK(whole > failed);
}

TEST_CASE("an allocation that fails in join, fork, cancel or take leaves the decoder as it was", "[faults]") {
    const FakeLaw law{.order = 3};
    const auto expected = whole_texts(law);
    std::int64_t at = 0;
    for (bool reached = true; reached; ++at) {
        CAPTURE(at);
        Outcome outcome;
        FakeTarget target(law);
        {
            SpeculativeDecoder decoder{
                RandomDraft{law, 3, 0.6}, std::ref(target), Match{}, {.nodes = 4, .max_batch = 2}};
            const SequenceId running = decoder.join({prompt_of(0)}, requests()[0]);
            const SequenceId waiting = decoder.join({prompt_of(1), {}, std::make_shared<Letters>()}, requests()[1]);
            decoder.step();
            std::int64_t left = at;
            SequenceId joined = -1, forked = -1;
            const auto call = [&](auto body) { short_of_memory(left, outcome, [&] { return body(), true; }); };
            call([&] { joined = decoder.join({prompt_of(2)}, requests()[2]); });
            call([&] { forked = decoder.fork(running, {}, {.max_tokens = 2}); });
            call([&] { (void)decoder.ended(); });
            call([&] { decoder.cancel(waiting); });
            decoder.run();
            REQUIRE(decoder.take(running).tokens == expected[0]);
            if (joined >= 0) REQUIRE(decoder.take(joined).tokens == expected[2]);
            if (forked >= 0) REQUIRE(decoder.take(forked).tokens.size() == 2);
            REQUIRE(decoder.finished(waiting));
            REQUIRE(outcome.errors <= 1);
        }
        REQUIRE(target.held() == 0);
        reached = outcome.reached;
    }
    CHECK(at > 10);
}
