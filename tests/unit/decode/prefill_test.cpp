// Prompts that enter in pieces: what a step takes, who is served, and what the others do meanwhile.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <map>
#include <memory>
#include <numeric>
#include <random>

#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"
#include "../../property/hostile_drafters.hpp"
#include "../../property/plain_loop.hpp"

using namespace outrider;
using namespace outrider::test;

namespace {

const FakeLaw kLaw{.order = 3, .context = 100'000};

std::vector<TokenId> long_prompt(std::int64_t tokens, TokenId first = 1) {
    std::vector<TokenId> prompt(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<TokenId>((first + i) % 11);
    return prompt;
}

/// A target that remembers what each prefill was given.
struct Watching final : FakeTarget {
    using FakeTarget::FakeTarget;
    Feedback prefill(std::span<const Prefill> prompts) override {
        auto& call = prefilled.emplace_back();
        for (const Prefill& prompt : prompts) call[prompt.sequence] = std::ssize(prompt.tokens);
        return FakeTarget::prefill(prompts);
    }
    std::vector<std::map<SequenceId, std::int64_t>> prefilled;
};

std::int64_t rows_of_call(const std::map<SequenceId, std::int64_t>& call) {
    return std::accumulate(call.begin(), call.end(), std::int64_t{0},
                           [](std::int64_t sum, const auto& one) { return sum + one.second; });
}

}  // namespace

TEST_CASE("a long prompt enters in pieces, and a running text gets a round between two", "[decode][prefill]") {
    Watching target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0, .prefill_rows = 50}};
    std::int64_t running = 0;
    const SequenceId first = decoder.join({{1, 2}}, {.max_tokens = 1000}, [&](std::span<const TokenId>) { ++running; });
    decoder.step();
    const std::vector<TokenId> prompt = long_prompt(1001);
    const SequenceId second = decoder.join({prompt}, {.max_tokens = 5});
    for (std::int64_t step = 1; step <= 19; ++step) {
        decoder.step();
        CHECK(running == 1 + step);
        CHECK(decoder.active() == 1);
        CHECK(decoder.waiting() == 1);
    }
    decoder.step();
    CHECK(decoder.active() == 2);
    decoder.run();
    CHECK(target.prefilled.size() == 21);
    CHECK(target.most_prefilled == 50);
    CHECK(decoder.take(second).tokens == plain_loop(kLaw, prompt, {}, 5));
    CHECK(decoder.take(first).tokens.size() == 1000);
}

TEST_CASE("where nobody runs, a step takes more of a prompt", "[decode][prefill]") {
    Watching target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0, .prefill_rows = 10}};
    (void)decoder.generate({long_prompt(3 * kRowsAlone + 1)}, {.max_tokens = 2});
    CHECK(target.prefilled.size() == 3);
    CHECK(target.most_prefilled == kRowsAlone);
}

TEST_CASE("prompts share a step's rows, and short ones do not wait for long ones", "[decode][prefill]") {
    Watching target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0, .prefill_rows = 30}};
    const SequenceId running = decoder.join({{1}}, {.max_tokens = 200});
    decoder.step();
    const SequenceId slow = decoder.join({long_prompt(401)}, {.max_tokens = 1});
    const SequenceId slower = decoder.join({long_prompt(601, 4)}, {.max_tokens = 1});
    const SequenceId quick = decoder.join({long_prompt(7)}, {.max_tokens = 1});
    const SequenceId single = decoder.join({{5}}, {.max_tokens = 1});
    decoder.step();
    const auto& call = target.prefilled.back();
    CHECK(rows_of_call(call) == 30);
    CHECK(call.at(quick) == 6);
    CHECK(call.at(single) == 0);
    CHECK(call.at(slow) == 12);
    CHECK(call.at(slower) == 12);
    CHECK(decoder.finished(quick));
    CHECK(decoder.finished(single));
    CHECK_FALSE(decoder.finished(slow));
    decoder.run();
    for (std::size_t i = 1; i < target.prefilled.size(); ++i) CHECK(rows_of_call(target.prefilled[i]) <= 30);
    CHECK(decoder.take(slow).tokens == plain_loop(kLaw, long_prompt(401), {}, 1));
    CHECK(decoder.take(slower).tokens == plain_loop(kLaw, long_prompt(601, 4), {}, 1));
    CHECK(decoder.take(running).tokens.size() == 200);
}

TEST_CASE("rows of trees count among those of a forward that takes both, up to half", "[decode][prefill]") {
    struct Mixing final : FakeTarget {
        explicit Mixing(FakeLaw law) : FakeTarget(law) { mixes_prompts = true; }
        MixedOutput verify_beside(std::span<const SequenceTree> trees, std::span<const Prefill> prompts) override {
            std::int64_t nodes = 0;
            for (const SequenceTree& one : trees) nodes += static_cast<std::int64_t>(one.tree.size());
            forwards.emplace_back(nodes, std::ssize(prompts[0].tokens));
            return FakeTarget::verify_beside(trees, prompts);
        }
        std::vector<std::pair<std::int64_t, std::int64_t>> forwards;  // rows of trees and of the prompt
    };
    for (const std::int64_t running : {1, 2, 8}) {
        Mixing target(kLaw);
        SpeculativeDecoder decoder{
            OracleDraft{kLaw, 1, 1.0, false}, std::ref(target), {.nodes = 4, .prefill_rows = 20}};
        for (TokenId i = 0; i < running; ++i) (void)decoder.join({{i}}, {.max_tokens = 2000});
        for (int i = 0; i < 5; ++i) decoder.step();
        target.forwards.clear();
        const SequenceId second = decoder.join({long_prompt(301)}, {.max_tokens = 5});
        while (!decoder.finished(second)) decoder.step();
        REQUIRE(target.forwards.size() >= 300 / 20);
        target.forwards.pop_back();  // what was left of the prompt
        for (const auto& [trees, prompt] : target.forwards) {
            CHECK(trees == 5 * running);
            CHECK(prompt == std::max<std::int64_t>(20 - trees, 10));
        }
        CHECK(decoder.take(second).tokens == plain_loop(kLaw, long_prompt(301), {}, 5));
    }
}

TEST_CASE("fewer rows than prompts: all are served in turn", "[decode][prefill]") {
    Watching target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0, .prefill_rows = 2}};
    (void)decoder.join({{1}}, {.max_tokens = 300});
    decoder.step();
    std::map<SequenceId, std::int64_t> got;
    for (TokenId i = 0; i < 5; ++i) got[decoder.join({long_prompt(41, i)}, {.max_tokens = 1})] = 0;
    for (int step = 0; step < 50; ++step) decoder.step();
    for (const auto& call : target.prefilled)
        for (const auto& [id, rows] : call)
            if (got.contains(id)) got[id] += rows;
    for (const auto& [id, rows] : got) CHECK(rows == 20);
}

TEST_CASE("a prompt that enters can be cancelled, and its piece can fail", "[decode][prefill]") {
    struct Fragile final : FakeTarget {
        using FakeTarget::FakeTarget;
        bool broken = false;
        Feedback prefill(std::span<const Prefill> prompts) override {
            if (broken) throw std::runtime_error("prefill broke");
            return FakeTarget::prefill(prompts);
        }
    };
    Fragile target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), {.nodes = 0, .prefill_rows = 10}};
    const SequenceId running = decoder.join({{1}}, {.max_tokens = 30});
    decoder.step();
    const SequenceId entering = decoder.join({long_prompt(101)});
    decoder.step();
    CHECK(target.held() == 2);
    CHECK(decoder.cancel(entering));
    CHECK(target.held() == 1);
    CHECK(decoder.take(entering).finish == FinishReason::cancelled);
    const SequenceId failing = decoder.join({long_prompt(101)});
    decoder.step();
    target.broken = true;
    CHECK_THROWS_AS(decoder.step(), std::runtime_error);
    target.broken = false;
    CHECK(target.held() == 1);
    CHECK(decoder.take(failing).finish == FinishReason::failed);
    decoder.run();
    CHECK(decoder.take(running).tokens == plain_loop(kLaw, {1}, {}, 30));
    const SequenceId left = decoder.join({long_prompt(101)});
    (void)left;
    decoder.step();
    CHECK(decoder.active() + decoder.waiting() == 1);
}

TEST_CASE("texts do not depend on how prompts are cut", "[decode][prefill]") {
    std::mt19937_64 random(3);
    const auto pick = [&](std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(random);
    };
    std::int64_t mixed = 0;
    for (int trial = 0; trial < 100; ++trial) {
        CAPTURE(trial);
        FakeTarget target(kLaw);
        target.takes_pieces = pick(0, 3) > 0;
        target.mixes_prompts = trial % 2 == 0;
        SpeculativeDecoder decoder{
            RandomDraft{kLaw, 5, 0.5},
            std::ref(target),
            {.nodes = 6, .max_batch = static_cast<std::size_t>(pick(1, 6)), .prefill_rows = pick(1, 40)}};
        std::map<SequenceId, std::vector<TokenId>> prompts;
        const auto some = static_cast<std::size_t>(pick(2, 10));
        while (prompts.size() < some) {
            std::vector<TokenId> prompt = long_prompt(pick(1, 300), static_cast<TokenId>(pick(0, 10)));
            const SequenceId id = decoder.join({prompt}, {.max_tokens = 20});
            prompts[id] = std::move(prompt);
            for (std::int64_t steps = pick(0, 4); steps > 0; --steps) decoder.step();
        }
        decoder.run();
        for (const auto& [id, prompt] : prompts) REQUIRE(decoder.take(id).tokens == plain_loop(kLaw, prompt, {}, 20));
        REQUIRE(target.held() == 0);
        mixed += target.mixed;
    }
    CHECK(mixed > 500);
}

TEST_CASE("a drafter that throws leaves the prompts beside it alone; a mixed forward that throws does not",
          "[decode][prefill]") {
    struct Fragile final : DraftModel {
        bool broken = false;
        [[nodiscard]] std::string_view kind() const override { return "fragile"; }
        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
            if (broken) throw std::runtime_error("propose broke");
            std::vector<SequenceTree> trees;
            for (const SequenceFeedback& one : feedback)
                trees.push_back({one.sequence, TokenTree::root_only(one.pending)});
            return trees;
        }
    };
    for (const bool in_forward : {false, true}) {
        FakeTarget target(kLaw);
        target.mixes_prompts = true;
        Fragile drafter;
        SpeculativeDecoder decoder{std::ref(drafter), std::ref(target), {.nodes = 2, .prefill_rows = 10}};
        const SequenceId running = decoder.join({{1}}, {.max_tokens = 30});
        decoder.step();
        const SequenceId entering = decoder.join({long_prompt(101)}, {.max_tokens = 5});
        decoder.step();
        CHECK(target.mixed == 1);
        (in_forward ? target.throw_in_verify : drafter.broken) = true;
        CHECK_THROWS_AS(decoder.step(), std::runtime_error);
        target.throw_in_verify = drafter.broken = false;
        CHECK(decoder.take(running).finish == FinishReason::failed);
        decoder.run();
        const GenerationResult result = decoder.take(entering);
        CHECK((result.finish == FinishReason::failed) == in_forward);
        if (!in_forward) CHECK(result.tokens == plain_loop(kLaw, long_prompt(101), {}, 5));
        CHECK(target.held() == 0);
    }
}
