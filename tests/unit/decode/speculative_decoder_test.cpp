#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <functional>
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

TEST_CASE("one prompt decodes to the target's own greedy text", "[decode]") {
    for (const std::vector<TokenId>& prompt : {std::vector<TokenId>{3}, std::vector<TokenId>{1, 2, 3, 4}}) {
        SpeculativeDecoder plain{NoDraft{}, FakeTarget{kLaw}, Match{}};
        SpeculativeDecoder ngram{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = 16}};
        const auto expected = plain_greedy(kLaw, prompt, 200);
        const GenerationResult a = plain.generate({prompt}, {.max_tokens = 200});
        const GenerationResult b = ngram.generate({prompt}, {.max_tokens = 200});
        CHECK(a.tokens == expected);
        CHECK(b.tokens == expected);
        CHECK(a.stats.rounds == 200);
        CHECK(b.stats.rounds < 150);
        CHECK(a.finish == FinishReason::length);
        CHECK(a.text.empty());  // the prompt came without a detokenizer
    }
}

TEST_CASE("parts may be values, pointers or references, and chosen at run time", "[decode]") {
    const auto expected = plain_greedy(kLaw, {1, 2}, 30);
    const Prompt prompt{{1, 2}};
    std::unique_ptr<DraftModel> drafter = std::make_unique<NgramDraft>();
    std::unique_ptr<Verifier> target = std::make_unique<FakeTarget>(kLaw);
    std::unique_ptr<AcceptancePolicy> policy = std::make_unique<Match>();
    SpeculativeDecoder by_pointer{std::move(drafter), std::move(target), std::move(policy)};
    CHECK(by_pointer.generate(prompt, {.max_tokens = 30}).tokens == expected);
    CHECK(by_pointer.drafter().kind() == "ngram");

    NgramDraft own;
    FakeTarget fake(kLaw);
    SpeculativeDecoder by_reference{std::ref(own), std::ref(fake), Match{}};
    CHECK(by_reference.generate(prompt, {.max_tokens = 30}).tokens == expected);
    CHECK(fake.held() == 0);
    SpeculativeDecoder moved = std::move(by_reference);
    CHECK(moved.generate(prompt, {.max_tokens = 30}).tokens == expected);

    CHECK_THROWS_AS((SpeculativeDecoder{std::unique_ptr<DraftModel>{}, FakeTarget{kLaw}, Match{}}), Error);
}

TEST_CASE("a host's own drafter need not derive from anything", "[decode]") {
    struct Own {
        std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) {
            std::vector<SequenceTree> trees;
            for (const auto& f : feedback) {
                TokenTree::Builder tree(f.pending);
                tree.add(0, token, 0.0F);
                trees.push_back({f.sequence, std::move(tree).build()});
            }
            return trees;
        }
        TokenId token = 1;
    };
    static_assert(Drafter<Own>);
    SpeculativeDecoder decoder{Own{}, FakeTarget{kLaw}, Match{}, {.nodes = 1}};
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 30}).tokens == plain_greedy(kLaw, {1, 2}, 30));
    decoder.drafter().token = 99;
    CHECK_THROWS_WITH(decoder.generate({{1, 2}}), ContainsSubstring("outside the target's vocabulary"));
}

TEST_CASE("text is streamed, and is what the result holds", "[decode]") {
    const Prompt prompt{{1, 2}, {}, std::make_shared<Letters>()};
    const std::string expected = letters(plain_greedy(kLaw, {1, 2}, 40));
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}};
    std::string seen;
    const auto show = [&](std::string_view text) { return seen += text, true; };
    CHECK(decoder.generate(prompt, {.max_tokens = 40}, show).text == expected);
    CHECK(seen == expected);
    const std::string stop = expected.substr(17, 5);
    const GenerationResult cut = decoder.generate(prompt, {.max_tokens = 40, .stop = {stop}});
    CHECK(cut.text == expected.substr(0, expected.find(stop)));
    CHECK(cut.finish == FinishReason::stop);
    seen.clear();
    const auto five = [&](std::string_view text) { return seen += text, seen.size() < 5; };
    CHECK(decoder.generate(prompt, {.max_tokens = 40}, five).text == expected.substr(0, 5));
}

TEST_CASE("requests that cannot be served are refused by name", "[decode]") {
    SpeculativeDecoder decoder{NoDraft{}, FakeTarget{{.vocabulary = 12, .context = 10}}, Match{}};
    const auto refuses = [&](Prompt prompt, GenerationOptions options, const char* why, Sink sink = {}) {
        CHECK_THROWS_WITH(decoder.join(std::move(prompt), options, sink), ContainsSubstring(why));
    };
    refuses({{}}, {}, "empty");
    refuses({{1, 12}}, {}, "vocabulary");
    refuses({{-1}}, {}, "vocabulary");
    refuses({std::vector<TokenId>(10, 1)}, {}, "shorten the prompt");
    refuses({{1}}, {.max_tokens = -1}, "max_tokens");
    refuses({{1}}, {.temperature = -1}, "temperature");
    refuses({{1}}, {.temperature = NAN}, "temperature");
    refuses({{1}}, {.top_p = 0}, "top_p");
    refuses({{1}}, {.top_k = -1}, "top_k");
    refuses({{1}}, {.min_p = 2}, "min_p");
    refuses({{1}}, {.repetition_penalty = 0}, "repetition_penalty");
    refuses({{1}}, {.stop = {"x"}}, "Prompt::text");
    refuses({{1}}, {}, "Prompt::text", [](std::string_view) { return true; });
    refuses({{1}, {}, std::make_shared<Letters>()}, {.stop = {""}}, "stop string");
    refuses({{1}, {}, std::make_shared<Letters>()}, {.stop = {"\xFF"}}, "stop string");
    CHECK(decoder.waiting() == 0);
    CHECK_THROWS_WITH(decoder.take(5), ContainsSubstring("no result"));
    CHECK_FALSE(decoder.cancel(5));
    CHECK(decoder.generate({{1}}, {.max_tokens = 0}).finish == FinishReason::length);
}

TEST_CASE("no draft and no text passes the context", "[decode]") {
    const FakeLaw law{.vocabulary = 5, .order = 1, .context = 20};  // FakeTarget throws for nodes beyond it
    SpeculativeDecoder decoder{OracleDraft{law, 1, 1.0, false}, FakeTarget{law}, Match{}, {.nodes = 16}};
    for (const std::size_t length : {1, 7, 18, 19}) {
        const GenerationResult result = decoder.generate({std::vector<TokenId>(length, 1)}, {.max_tokens = 100});
        CHECK(result.tokens.size() == 20 - length);
        CHECK(result.finish == FinishReason::length);
    }
}

TEST_CASE("callbacks may cancel, join and take, but not step", "[decode]") {
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}};
    SequenceId other = 0, late = 0;
    std::size_t others_tokens = 0;
    int seen = 0;
    const SequenceId first = decoder.join({{1}}, {.max_tokens = 30}, [&](std::span<const TokenId>) {
        if (++seen == 3) CHECK(decoder.cancel(other));
        if (seen == 5) late = decoder.join({{4}}, {.max_tokens = 8});
        if (seen == 6) CHECK_THROWS_AS(decoder.step(), Error);
        return true;
    });
    other = decoder.join({{2}}, {.max_tokens = 500}, [&](std::span<const TokenId>) { return ++others_tokens, true; });
    decoder.run();
    CHECK(decoder.take(first).tokens == plain_greedy(kLaw, {1}, 30));
    CHECK(decoder.take(late).tokens == plain_greedy(kLaw, {4}, 8));
    const GenerationResult cancelled = decoder.take(other);
    CHECK(cancelled.finish == FinishReason::cancelled);
    CHECK(cancelled.tokens == plain_greedy(kLaw, {2}, static_cast<std::int64_t>(others_tokens)));
    CHECK(decoder.verifier().held() == 0);

    SequenceId self = 0;
    self = decoder.join({{5}}, {}, [&](std::span<const TokenId>) { return decoder.cancel(self), true; });
    decoder.run();
    CHECK(decoder.take(self).tokens.size() == 1);
}

TEST_CASE("several joiners are prefilled together, and the batch is limited", "[decode]") {
    FakeTarget target(kLaw);
    SpeculativeDecoder decoder{NoDraft{}, std::ref(target), Match{}, {.max_batch = 3}};
    for (TokenId i = 0; i < 7; ++i) (void)decoder.join({{i, 1}}, {.max_tokens = 4});
    decoder.step();
    CHECK(target.calls == 1);  // one prefill
    CHECK(target.rows == 3);
    CHECK(decoder.active() == 3);
    CHECK(decoder.waiting() == 4);
    decoder.run();
    CHECK(target.passes == 12);  // three groups of four rounds
}

TEST_CASE("times are shared equally and add up", "[decode]") {
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = 16}};
    const double start = now_seconds();
    std::vector<SequenceId> ids;
    for (TokenId i = 0; i < 4; ++i) ids.push_back(decoder.join({{i}}, {.max_tokens = 40}));
    decoder.run();
    const double total = now_seconds() - start;
    DecodeStats sum;
    for (const SequenceId id : ids) sum += decoder.take(id).stats;
    CHECK(sum.seconds.draft > 0);
    CHECK(sum.seconds.verify > 0);
    CHECK(sum.seconds.accept > 0);
    CHECK(sum.seconds.commit > 0);
    CHECK(sum.seconds.other > 0);
    CHECK(sum.seconds.prefill > 0);
    CHECK(sum.seconds.decoding() + sum.seconds.prefill <= total);
    CHECK(sum.tokens == 160);
}

TEST_CASE("a drafter that is not asked learns all of it later", "[decode]") {
    const auto feedback = [](SequenceId id, std::vector<TokenId> tokens, TokenId pending, std::int64_t committed) {
        SequenceFeedback f{id, std::move(tokens), {}, pending, committed};
        f.features = at::empty({static_cast<std::int64_t>(f.tokens.size()), 2}, at::kFloat);
        for (std::size_t i = 0; i < f.tokens.size(); ++i) f.features[static_cast<std::int64_t>(i)].fill_(f.tokens[i]);
        return f;
    };
    OwedFeedback owed;
    owed.join(feedback(7, {1, 2}, 3, 2));
    owed.join(feedback(8, {}, 4, 0));  // a prompt of one token
    CHECK(owed.tokens() == std::vector<std::int64_t>{2, 0});
    owed.add({feedback(7, {3, 5}, 6, 4), feedback(8, {4}, 9, 1)});
    owed.add({feedback(7, {6}, 10, 5), feedback(8, {9, 11}, 12, 3)});
    owed.join(feedback(9, {13}, 14, 1));
    CHECK(owed.tokens() == std::vector<std::int64_t>{5, 3, 1});
    const auto check = [](const SequenceFeedback& f, SequenceId id, const std::vector<TokenId>& tokens,
                          TokenId pending) {
        CHECK(f.sequence == id);
        CHECK(f.tokens == tokens);
        CHECK(f.pending == pending);
        REQUIRE(f.features.sizes() == at::IntArrayRef{static_cast<std::int64_t>(tokens.size()), 2});
        for (std::size_t i = 0; i < tokens.size(); ++i)
            CHECK(f.features[static_cast<std::int64_t>(i)][1].item<float>() == float(tokens[i]));
    };
    const std::vector<std::size_t> outer{0, 2};
    const Feedback taken = owed.take(outer);
    REQUIRE(taken.size() == 2);
    check(taken[0], 7, {1, 2, 3, 5, 6}, 10);
    check(taken[1], 9, {13}, 14);
    CHECK(taken[0].committed == 5);
    CHECK(owed.tokens() == std::vector<std::int64_t>{0, 3, 0});
    owed.drop(0);
    owed.add({feedback(8, {12}, 15, 4), feedback(9, {14}, 16, 2)});
    const std::vector<std::size_t> both{0, 1};
    const Feedback rest = owed.take(both);
    check(rest[0], 8, {4, 9, 11, 12}, 15);
    check(rest[1], 9, {14}, 16);
    CHECK(rest[0].committed == 4);
}

TEST_CASE("where passes cost such that nothing can gain, the drafter is never asked", "[decode]") {
    FakeTarget target(kLaw);
    target.times = {{1, 1.0}, {1024, 1024.0}};
    bool broken = true;  // it would throw
    SpeculativeDecoder decoder{FragileDraft{broken}, std::ref(target), Match{}};
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 30}).tokens == plain_greedy(kLaw, {1, 2}, 30));
    SpeculativeDecoder asked{FragileDraft{broken}, std::ref(target), Match{}, {.nodes = 1}};
    CHECK_THROWS_AS(asked.generate({{1, 2}}), std::runtime_error);
}

TEST_CASE("logits are asked for where they are read: argmax alone serves greedy texts", "[decode]") {
    struct Sparing {  // leaves out what nobody reads
        FakeTarget target{kLaw};
        std::vector<bool> asked;
        bool always = false;
        Feedback prefill(std::span<const Prefill> prompts) { return target.prefill(prompts); }
        TreeOutput verify(std::span<const SequenceTree> trees) {
            TreeOutput output = target.verify(trees);
            bool read = false;
            for (const SequenceTree& tree : trees) asked.push_back(tree.logits), read = read || tree.logits;
            output.argmax = output.logits.argmax(-1);
            if (always || !read) output.logits = at::Tensor();
            return output;
        }
        Feedback commit(std::span<const SequenceAcceptance> accepted) { return target.commit(accepted); }
        [[nodiscard]] std::int64_t vocabulary() const { return target.vocabulary(); }
        [[nodiscard]] std::int64_t context() const { return target.context(); }
    };
    Sparing verifier;
    SpeculativeDecoder decoder{NgramDraft{}, std::ref(verifier), Match{}, {.nodes = 3}};
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 40}).tokens == plain_greedy(kLaw, {1, 2}, 40));
    CHECK(std::ranges::none_of(verifier.asked, std::identity{}));
    const auto all_read = [&](GenerationOptions options) {
        verifier.asked.clear();
        options.max_tokens = 9;
        (void)decoder.generate({{1, 2}}, std::move(options));
        return !verifier.asked.empty() && std::ranges::all_of(verifier.asked, std::identity{});
    };
    CHECK_FALSE(all_read({.top_k = 3}));  // still the most probable one
    CHECK(all_read({.temperature = 0.5}));
    CHECK(all_read({.repetition_penalty = 1.5}));
    CHECK(all_read({.logprobs = 0}));
    CHECK(all_read({.logit_bias = {{3, 1.0F}}}));
    CHECK(all_read({.min_tokens = 2}));
    CHECK(all_read({.logit_hook = [](std::span<const TokenId>, std::span<float>) {}}));
    struct Silent {  // does not say what it reads
        [[nodiscard]] Acceptance accept(const TokenTree& tree, const TreeRows& rows,
                                        const SequenceContext& context) const {
            return Match{}.accept(tree, rows, context);
        }
    };
    SpeculativeDecoder other{NgramDraft{}, std::ref(verifier), Silent{}};
    verifier.asked.clear();
    (void)other.generate({{1, 2}}, {.max_tokens = 9});
    CHECK(std::ranges::all_of(verifier.asked, std::identity{}));
    verifier.always = true;
    CHECK_THROWS_WITH(decoder.generate({{1}}, {.temperature = 1.0}), ContainsSubstring("logits must be"));
}

TEST_CASE("as many nodes as one likes, within reason", "[decode]") {
    CHECK_THROWS_WITH((SpeculativeDecoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = 1LL << 40}}),
                      ContainsSubstring("1024"));
    CHECK_THROWS_WITH((SpeculativeDecoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = -2}}),
                      ContainsSubstring("kAutoNodes"));
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = 1024}};
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 60}).tokens == plain_greedy(kLaw, {1, 2}, 60));
}
