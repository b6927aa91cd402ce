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

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using namespace outrider::test;

namespace {

/// The independent loop: the target's own greedy text.
std::vector<TokenId> plain_greedy(const FakeLaw& law, std::vector<TokenId> text, std::int64_t tokens) {
    const std::size_t prompt = text.size();
    std::vector<float> logits(static_cast<std::size_t>(law.vocabulary));
    for (std::int64_t i = 0; i < tokens; ++i) {
        fake_logits(law, text, logits.data());
        text.push_back(static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    return {text.begin() + static_cast<std::ptrdiff_t>(prompt), text.end()};
}

/// Token i is one letter.
class Letters final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        return std::string(1, static_cast<char>('a' + token));
    }
};

std::string letters(const std::vector<TokenId>& tokens) {
    std::string text;
    for (const TokenId t : tokens) text += static_cast<char>('a' + t);
    return text;
}

const FakeLaw kLaw{.order = 3};

/// A drafter that throws when it is told to.
class FragileDraft final : public DraftModel {
public:
    explicit FragileDraft(bool& broken) : broken_(broken) {}
    [[nodiscard]] std::string_view kind() const override { return "fragile"; }

    std::vector<SequenceTree> propose(std::span<const SequenceFeedback> feedback, DraftBudget) override {
        if (broken_) throw std::runtime_error("the drafter broke");
        std::vector<SequenceTree> trees;
        for (const auto& f : feedback) trees.push_back({f.sequence, TokenTree::root_only(f.pending)});
        return trees;
    }

private:
    bool& broken_;
};

}  // namespace

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

TEST_CASE("logits of another width than the vocabulary are refused", "[decode][errors]") {
    struct Narrow {
        FakeTarget target{kLaw};
        Feedback prefill(std::span<const Prefill> prompts) { return target.prefill(prompts); }
        TreeOutput verify(std::span<const SequenceTree> trees) {
            TreeOutput output = target.verify(trees);
            output.logits = output.logits.slice(1, 0, 3);
            return output;
        }
        Feedback commit(std::span<const SequenceAcceptance> accepted) { return target.commit(accepted); }
        [[nodiscard]] std::int64_t vocabulary() const { return target.vocabulary(); }
        [[nodiscard]] std::int64_t context() const { return target.context(); }
    };
    SpeculativeDecoder decoder{NoDraft{}, Narrow{}, Match{}};
    CHECK_THROWS_WITH(decoder.generate({{1}}), ContainsSubstring("[1, 12]"));
}

TEST_CASE("as many nodes as one likes, within reason", "[decode]") {
    CHECK_THROWS_WITH((SpeculativeDecoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = 1LL << 40}}),
                      ContainsSubstring("1024"));
    CHECK_THROWS_WITH((SpeculativeDecoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = -2}}),
                      ContainsSubstring("kAutoNodes"));
    SpeculativeDecoder decoder{NgramDraft{}, FakeTarget{kLaw}, Match{}, {.nodes = 1024}};
    CHECK(decoder.generate({{1, 2}}, {.max_tokens = 60}).tokens == plain_greedy(kLaw, {1, 2}, 60));
}
