// What throws in the middle of a round ends what it concerns; the others go on.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <map>
#include <memory>

#include <outrider/accept/match.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>

#include "../../property/fake_target.hpp"
#include "../../property/hostile_drafters.hpp"
#include "decoder_fixture.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using namespace outrider::test;

TEST_CASE("an exception of one callback ends that sequence alone", "[decode][errors]") {
    auto target = std::make_shared<FakeTarget>(kLaw);
    SpeculativeDecoder decoder{NgramDraft{}, target, Match{}};
    int seen = 0;
    const SequenceId bad = decoder.join({{1}}, {}, [&](std::span<const TokenId>) -> bool {
        if (++seen == 4) throw std::runtime_error("the host broke");
        return true;
    });
    const SequenceId good = decoder.join({{2}}, {.max_tokens = 50});
    CHECK_THROWS_WITH(decoder.run(), "the host broke");
    CHECK(target->held() == 1);
    const GenerationResult failed = decoder.take(bad);
    CHECK(failed.finish == FinishReason::failed);
    CHECK(failed.error == "the host broke");
    CHECK(failed.tokens == plain_greedy(kLaw, {1}, 4));
    decoder.run();
    CHECK(decoder.take(good).tokens == plain_greedy(kLaw, {2}, 50));
    CHECK(target->held() == 0);
}

TEST_CASE("logits that are not a number end the sequence that met them", "[decode][errors]") {
    const auto clean = plain_greedy(kLaw, {1}, 30);
    auto target = std::make_shared<FakeTarget>(kLaw);
    target->nan_after = clean[10];
    SpeculativeDecoder decoder{NgramDraft{}, target, Match{}};
    const SequenceId bad = decoder.join({{1}}, {.max_tokens = 30});
    CHECK_THROWS_WITH(decoder.run(), ContainsSubstring("not a number"));
    const GenerationResult failed = decoder.take(bad);
    CHECK(failed.finish == FinishReason::failed);
    const auto first = static_cast<std::size_t>(std::find(clean.begin(), clean.end(), clean[10]) - clean.begin());
    CHECK(failed.tokens == std::vector<TokenId>(clean.begin(), clean.begin() + static_cast<std::ptrdiff_t>(first) + 1));
    CHECK(target->held() == 0);
}

TEST_CASE("a policy that throws for one sequence leaves the others in step", "[decode][errors]") {
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}};
    std::vector<SequenceId> ids;
    for (TokenId i = 0; i < 5; ++i) {
        GenerationOptions options{.max_tokens = 40};
        if (i == 2 || i == 4)
            options.logit_hook = [i](std::span<const TokenId> text, std::span<float>) {
                if (text.size() > static_cast<std::size_t>(6 + i)) throw std::runtime_error("the hook broke");
            };
        ids.push_back(decoder.join({{i}}, options));
    }
    int errors = 0;
    for (bool more = true; more;) {
        try {
            more = decoder.step();
        } catch (const std::exception& e) {
            CHECK(std::string(e.what()) == "the hook broke");
            ++errors;
        }
    }
    CHECK(errors == 2);
    for (TokenId i = 0; i < 5; ++i) {
        const GenerationResult result = decoder.take(ids[static_cast<std::size_t>(i)]);
        const bool broke = i == 2 || i == 4;
        CHECK(result.finish == (broke ? FinishReason::failed : FinishReason::length));
        CHECK(result.tokens == plain_greedy(kLaw, {i}, static_cast<std::int64_t>(result.tokens.size())));
        CHECK((result.tokens.size() == 40) == !broke);
    }
    CHECK(decoder.verifier().held() == 0);
}

TEST_CASE("a stage that throws ends what it was called for, and the decoder goes on", "[decode][errors]") {
    bool broken = false;
    FakeTarget target(kLaw);
    SpeculativeDecoder decoder{FragileDraft{broken}, std::ref(target), Match{}, {.nodes = 4, .max_batch = 2}};
    for (const bool in_draft : {true, false}) {
        const SequenceId a = decoder.join({{1}}), b = decoder.join({{2}}),
                         waits = decoder.join({{3}}, {.max_tokens = 9});
        decoder.step();
        (in_draft ? broken : target.throw_in_verify) = true;
        CHECK_THROWS_AS(decoder.step(), std::runtime_error);
        broken = target.throw_in_verify = false;
        CHECK(decoder.take(a).finish == FinishReason::failed);
        CHECK(decoder.take(b).tokens == plain_greedy(kLaw, {2}, 1));
        CHECK(target.held() == 0);
        decoder.run();
        CHECK(decoder.take(waits).tokens == plain_greedy(kLaw, {3}, 9));
    }
    CHECK_THROWS_AS(
        [&] {
            broken = true;
            (void)decoder.generate({{1}});
        }(),
        std::runtime_error);
    broken = false;
    CHECK(decoder.generate({{1}}, {.max_tokens = 5}).tokens == plain_greedy(kLaw, {1}, 5));
}

TEST_CASE("a verifier that cannot tell its costs fails one step and no sequence", "[decode][errors]") {
    struct Untimed {  // a FakeTarget, but for one call
        FakeTarget target{kLaw};
        Feedback prefill(std::span<const Prefill> prompts) { return target.prefill(prompts); }
        TreeOutput verify(std::span<const SequenceTree> trees) { return target.verify(trees); }
        Feedback commit(std::span<const SequenceAcceptance> accepted) { return target.commit(accepted); }
        void release(SequenceId sequence) { target.release(sequence); }
        [[nodiscard]] std::int64_t vocabulary() const { return target.vocabulary(); }
        [[nodiscard]] std::int64_t context() const { return target.context(); }
        std::vector<PassTime> pass_times() { throw std::runtime_error("no clock"); }
    };
    SpeculativeDecoder decoder{NgramDraft{}, Untimed{}, Match{}};
    const SequenceId id = decoder.join({{1}}, {.max_tokens = 9});
    CHECK_THROWS_WITH(decoder.step(), "no clock");
    decoder.run();
    CHECK(decoder.take(id).tokens == plain_greedy(kLaw, {1}, 9));
}

TEST_CASE("a callback that throws on its last token has failed", "[decode][errors]") {
    const auto clean = plain_greedy(kLaw, {1}, 6);
    for (const bool at_limit : {true, false}) {
        SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}};
        GenerationOptions options{.max_tokens = at_limit ? 6 : 50};
        if (!at_limit) options.end_ids = {clean.back()};
        const SequenceId id =
            decoder.join({{1}}, options, [&, seen = std::size_t{0}](std::span<const TokenId>) mutable {
                if (++seen == 6) throw std::runtime_error("the host broke");
                return true;
            });
        CHECK_THROWS_WITH(decoder.run(), "the host broke");
        const GenerationResult failed = decoder.take(id);
        CHECK(failed.finish == FinishReason::failed);
        CHECK(failed.error == "the host broke");
        CHECK(failed.tokens == clean);
    }
}

TEST_CASE("a sequence that has ended does not fail with its round", "[decode][errors]") {
    FakeTarget target(kLaw);
    SpeculativeDecoder decoder{NgramDraft{}, std::ref(target), Match{}};
    const SequenceId other = decoder.join({{2}});
    SequenceId cancelled = 0;
    cancelled = decoder.join({{1}}, {.logit_hook = [&](std::span<const TokenId> text, std::span<float>) {
                                 if (text.size() > 4 && decoder.cancel(cancelled)) target.throw_in_commit = true;
                             }});
    CHECK_THROWS_WITH(decoder.run(), "commit broke");
    const GenerationResult result = decoder.take(cancelled);
    CHECK(result.finish == FinishReason::cancelled);
    CHECK(result.error.empty());
    CHECK(result.tokens == plain_greedy(kLaw, {1}, 4));
    CHECK(decoder.take(other).error == "commit broke");
    CHECK(target.held() == 0);
}

TEST_CASE("generate loses no text to a sequence that fails beside it", "[decode][errors]") {
    for (const std::int64_t until : {3, 9}) {  // in the middle, and in the round in which the other ends
        SpeculativeDecoder decoder{NoDraft{}, FakeTarget{kLaw}, Match{}};
        const SequenceId bad = decoder.join({{2}}, {}, [&, seen = 0](std::span<const TokenId>) mutable {
            if (++seen == until) throw std::runtime_error("the host broke");
            return true;
        });
        CHECK(decoder.generate({{1}}, {.max_tokens = 9}).tokens == plain_greedy(kLaw, {1}, 9));
        CHECK(decoder.take(bad).error == "the host broke");
        CHECK_THROWS_WITH(decoder.step(), "the host broke");  // told late, but told
        CHECK_FALSE(decoder.step());
    }
}

TEST_CASE("generate throws what ended its own sequence", "[decode][errors]") {
    SpeculativeDecoder decoder{NoDraft{}, FakeTarget{kLaw}, Match{}};
    const auto breaks = [](const char* what) {
        return [what](std::span<const TokenId>) -> bool { throw std::runtime_error(what); };
    };
    (void)decoder.join({{2}}, {}, breaks("the other broke"));
    (void)decoder.generate({{1}}, {.max_tokens = 2});
    CHECK_THROWS_WITH(decoder.generate({{1}}, {.max_tokens = 2}, breaks("this one broke")), "this one broke");
    CHECK_THROWS_WITH(decoder.run(), "the other broke");
}

TEST_CASE("logits of another width than the vocabulary are refused, and too few picks", "[decode][errors]") {
    struct Narrow {
        FakeTarget target{kLaw};
        bool picks = false;
        Feedback prefill(std::span<const Prefill> prompts) { return target.prefill(prompts); }
        TreeOutput verify(std::span<const SequenceTree> trees) {
            TreeOutput output = target.verify(trees);
            if (picks)
                output.picks = output.logits.argmax(-1).slice(0, 1);
            else
                output.logits = output.logits.slice(1, 0, 3);
            return output;
        }
        Feedback commit(std::span<const SequenceAcceptance> accepted) { return target.commit(accepted); }
        [[nodiscard]] std::int64_t vocabulary() const { return target.vocabulary(); }
        [[nodiscard]] std::int64_t context() const { return target.context(); }
    };
    SpeculativeDecoder decoder{NoDraft{}, Narrow{}, Match{}};
    CHECK_THROWS_WITH(decoder.generate({{1}}), ContainsSubstring("[1, 12]"));
    decoder.verifier().picks = true;
    CHECK_THROWS_WITH(decoder.generate({{1}}), ContainsSubstring("picks must be [1]"));
}
