// A language model as drafter: its cache follows the text, its drafts change nothing, and its draws keep the law.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include <outrider/draft/lm.hpp>
#include <outrider/engine/detail/any_decoder.hpp>
#include <outrider/engine/make_policy.hpp>

#include "fake_causal_model.hpp"
#include "fake_target.hpp"
#include "plain_loop.hpp"
#include "text_law.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

namespace {

/// `own`: the law of the drafter's model. The decoder's drafter, and a look at its model.
struct Made {
    FakeCausalModel* model;
    std::unique_ptr<LmDraft> draft;
};
Made lm(const FakeLaw& own, const FakeLaw& target, const LmDraftOptions& options) {
    auto model = std::make_unique<FakeCausalModel>(own);
    FakeCausalModel* seen = model.get();
    return {seen, std::make_unique<LmDraft>(std::move(model), fake_head(target), options)};
}

constexpr LmDraftOptions kChain{.tree = LmTree::chain, .max_depth = 4};
constexpr LmDraftOptions kTree{.tree = LmTree::best_first, .max_depth = 4, .width = 3};
constexpr LmDraftOptions kDrawn{.tree = LmTree::sampled, .max_depth = 3};
constexpr LmDraftOptions kTwo{.tree = LmTree::sampled, .max_depth = 3, .chains = 2};

}  // namespace

TEST_CASE("the target as its own drafter is accepted to the last node, one new row a level", "[property][lm]") {
    const FakeLaw law{.vocabulary = 20};
    auto [model, draft] = lm(law, law, kChain);
    SpeculativeDecoder decoder{std::move(draft), FakeTarget{law}, make_policy("match"), {.nodes = 4}};
    const GenerationResult result = decoder.generate({{1, 2, 3}}, {.max_tokens = 50});
    CHECK(result.stats.rounds == 10);
    CHECK(result.stats.accepted == 40);
    CHECK(model->caches.empty());             // released
    CHECK(model->rows_run == 3 + 3 + 9 * 5);  // prompt; three more levels; then two tokens and three levels a round
}

TEST_CASE("best-first trees of the target's own law hold its choice", "[property][lm]") {
    const FakeLaw law{.vocabulary = 20, .step = 2.0F};
    SpeculativeDecoder decoder{lm(law, law, kTree).draft, FakeTarget{law}, make_policy("match"), {.nodes = 12}};
    const DecodeStats stats = decoder.generate({{1, 2, 3}}, {.max_tokens = 60}).stats;
    CHECK(stats.beta() > 3.5);
    CHECK(stats.drafted_per_depth.size() == 4);
}

TEST_CASE("a chain that is asked for is the model's own greedy text, one new row a level", "[property][lm]") {
    const FakeLaw law{.vocabulary = 20};
    const SequenceFeedback f{.sequence = 1, .tokens = {1, 2, 3}, .features = {}, .pending = 4, .committed = 3};
    for (const std::int64_t nodes : {1, 3, 9}) {
        const DraftBudget budget{.nodes = nodes, .chains = true};
        const auto chain = lm(law, law, kChain).draft->propose(std::span(&f, 1), budget)[0].tree;
        auto [model, draft] = lm(law, law, kTree);
        const auto tree = draft->propose(std::span(&f, 1), budget)[0].tree;
        CHECK(std::ranges::equal(tree.tokens(), chain.tokens()));
        CHECK(static_cast<std::int64_t>(tree.drafted()) == std::min<std::int64_t>(nodes, 4));
        CHECK(static_cast<std::size_t>(tree.height()) == tree.drafted());
        CHECK(model->rows_run == 3 + static_cast<std::int64_t>(tree.drafted()));  // the text, and but for the last one
        const auto drawn = lm(law, law, kTwo).draft->propose(std::span(&f, 1), budget)[0];
        CHECK(static_cast<std::int64_t>(drawn.tree.drafted()) == std::min<std::int64_t>(nodes, 3));
        CHECK(static_cast<std::size_t>(drawn.tree.height()) == drawn.tree.drafted());
        REQUIRE(drawn.samples != nullptr);
        CHECK(drawn.samples->is_chain());
    }
}

TEST_CASE("texts do not depend on a language model that drafts, in batches, near the end, with a small context",
          "[property][lm]") {
    std::mt19937 engine(3);
    for (int trial = 0; trial < 40; ++trial) {
        CAPTURE(trial);
        const FakeLaw law{.vocabulary = 12, .order = 2, .seed = engine()};
        FakeLaw own = law;
        if (trial % 2 == 0) own.seed += 1;     // another model
        if (trial % 5 == 0) own.context = 30;  // shorter than the texts
        const LmDraftOptions options = trial % 4 == 0   ? kChain
                                       : trial % 4 == 1 ? kTree
                                       : trial % 4 == 2 ? kDrawn
                                                        : kTwo;
        const auto nodes = static_cast<std::int64_t>(engine() % 10);
        auto made = lm(own, law, options);
        SpeculativeDecoder decoder{
            std::move(made.draft), FakeTarget{law}, make_policy("match"), {.nodes = nodes, .max_batch = 3}};
        std::vector<std::pair<SequenceId, std::vector<TokenId>>> expected;
        for (int i = 0; i < 5; ++i) {
            std::vector<TokenId> prompt(1 + engine() % (i == 0 ? 700 : 12));  // one runs in several forwards
            for (TokenId& token : prompt) token = static_cast<TokenId>(engine() % 12);
            GenerationOptions o{.max_tokens = 10 + static_cast<std::int64_t>(engine() % 20)};
            o.temperature = i % 2, o.seed = engine();
            const SequenceId id = decoder.join({prompt}, o);
            expected.push_back({id, plain_loop(law, prompt, o, o.max_tokens)});
        }
        decoder.run();
        for (const auto& [id, tokens] : expected) CHECK(decoder.take(id).tokens == tokens);
        CHECK(made.model->caches.empty());
    }
}

TEST_CASE("a batch drafts what each sequence drafts alone", "[property][lm]") {
    const FakeLaw law{.vocabulary = 12};
    const auto feedback = [](SequenceId id, std::vector<TokenId> tokens, TokenId pending) {
        const auto committed = static_cast<std::int64_t>(tokens.size());
        return SequenceFeedback{id, std::move(tokens), {}, pending, committed};
    };
    const std::vector<SequenceFeedback> both{feedback(1, {1, 2, 3}, 4), feedback(2, std::vector<TokenId>(40, 7), 5)};
    for (const LmDraftOptions& options : {kChain, kTree, kDrawn, kTwo}) {
        auto together = lm(law, law, options).draft;
        const auto trees = together->propose(both, {8});
        for (std::size_t i = 0; i < both.size(); ++i) {
            auto alone = lm(law, law, options).draft;
            const auto tree = alone->propose(std::span(&both[i], 1), {8});
            CHECK(std::ranges::equal(trees[i].tree.tokens(), tree[0].tree.tokens()));
            CHECK(std::ranges::equal(trees[i].tree.parents(), tree[0].tree.parents()));
            CHECK(std::ranges::equal(trees[i].tree.log_q(), tree[0].tree.log_q()));
            CHECK(trees[i].tree.drafted() > 0);
        }
    }
}

TEST_CASE("draws of a language model keep the target's law under every rule", "[property][law][lm]") {
    FakeLaw own = kLaw;
    own.seed += 5;
    const GenerationOptions o{.temperature = 0.9, .top_k = 4};
    const auto check = [&](const char* policy, LmDraftOptions options) {
        CAPTURE(policy, options.chains, options.top_k);
        const Texts texts = texts_of(o, lm(own, kLaw, options).draft, FakeTarget{kLaw}, make_policy(policy), 5000, 6);
        CHECK(texts.excess < 3.5);
        CHECK(texts.control > 10);
        CHECK(texts.accepted > 500);
    };
    for (const char* policy : {"rejection", "block", "unified"}) check(policy, kDrawn);
    for (const char* policy : {"multi_step", "kseq", "traversal", "unified"}) check(policy, kTwo);
    LmDraftOptions few = kDrawn;
    few.top_k = 2, few.temperature = 0.5;  // whatever it draws from, that is its law
    check("rejection", few);
    check("block", few);
}

TEST_CASE("a language model that draws at temperature 0 drafts its greedy text, and says so", "[property][lm]") {
    const FakeLaw law{.vocabulary = 12};
    const SequenceFeedback f{3, {1, 2, 3}, {}, 4, 3};
    const auto greedy = lm(law, law, {.tree = LmTree::chain, .max_depth = 3}).draft->propose(std::span(&f, 1), {3});
    for (LmDraftOptions options : {kDrawn, kTwo}) {
        options.temperature = 0.0;
        const auto drawn = lm(law, law, options).draft->propose(std::span(&f, 1), {3 * options.chains});
        const TokenTree& tree = drawn[0].tree;
        REQUIRE(tree.drafted() == 3);
        CHECK(std::ranges::equal(tree.tokens(), greedy[0].tree.tokens()));  // chains that agree are one path
        std::vector<TokenId> path;
        for (std::size_t i = 1; i < tree.size(); ++i) {
            std::vector<double> q(static_cast<std::size_t>(law.vocabulary), 0.0);
            REQUIRE(drawn[0].samples != nullptr);
            drawn[0].samples->law().conditional(path, q);
            CHECK(q[static_cast<std::size_t>(tree.tokens()[i])] == 1.0);
            CHECK(std::accumulate(q.begin(), q.end(), 0.0) == 1.0);
            CHECK(tree.log_q()[i] == 0.0F);
            path.push_back(tree.tokens()[i]);
        }
    }
    LmDraftOptions cold = kDrawn;
    cold.temperature = 0.0;
    SpeculativeDecoder decoder{lm(law, law, cold).draft, FakeTarget{law}, make_policy("rejection"), {.nodes = 3}};
    const GenerationOptions o{.max_tokens = 40, .temperature = 0.0};
    const GenerationResult result = decoder.generate({{1, 2, 3}}, o);
    CHECK(result.tokens == plain_loop(law, {1, 2, 3}, o, o.max_tokens));
    CHECK(result.stats.accepted == 30);  // the target's own text: every node of it
    CHECK_THROWS_AS(LmDraft(std::make_unique<FakeCausalModel>(law), fake_head(law), {.temperature = -0.5}), Error);
}

TEST_CASE("a language model as drafter refuses another tokenizer, and feedback with a gap", "[property][lm]") {
    const FakeLaw law{.vocabulary = 12};
    TargetHead other = fake_head(law);
    other.tokenizer = "another";
    CHECK_THROWS_WITH(LmDraft(std::make_unique<FakeCausalModel>(law), other), ContainsSubstring("another tokenizer"));
    CHECK_THROWS_AS(LmDraft(nullptr, fake_head(law)), Error);
    CHECK_THROWS_AS(LmDraft(std::make_unique<FakeCausalModel>(law), fake_head(law), {.width = 0}), Error);
    auto draft = lm(law, law, kChain).draft;
    SequenceFeedback f{4, {1, 2, 3}, {}, 5, 3};
    CHECK(draft->propose(std::span(&f, 1), {4})[0].tree.drafted() == 4);
    f = {4, {6}, {}, 7, 5};
    CHECK_THROWS_WITH(draft->propose(std::span(&f, 1), {4}), ContainsSubstring("every round"));
}
