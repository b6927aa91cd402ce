// What training is made of: conversations, the draft vocabulary, stored features, anchors in their order, steps.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <set>

#include "train/adamw.hpp"
#include "train/feature_store.hpp"
#include "train/network_learner.hpp"
#include <outrider/train/distill.hpp>
#include <outrider/train/train.hpp>

#include "train/anchor_batches.hpp"
#include "train_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("read_conversations: order, selection and errors") {
    const fs::path folder = scratch();
    const fs::path path = toy_text(folder, 40);
    const auto all = read_conversations(path, encode), greedy = read_conversations(path, encode, {.greedy_only = true});
    CHECK(all.size() == 40);
    CHECK(greedy.size() == 30);
    for (std::size_t i = 0; i < all.size(); ++i) {
        CHECK(all[i].greedy == (i < 30));
        CHECK(all[i].answer == 4);
        CHECK(all[i].tokens.size() == 28);
    }
    CHECK(read_conversations(path, encode, {.limit = 7}).size() == 7);
    CHECK_THROWS_AS(read_conversations(path, encode, {.max_tokens = 27}), Error);
    CHECK_THROWS_AS(read_conversations(folder / "none", encode), Error);
    CHECK_THROWS_AS(read_conversations(path, {.chat = [](auto) { return std::vector<TokenId>{1, 2}; }}),
                    Error);  // another tokenizer
    std::ofstream(folder / "bad.jsonl") << "{\"messages\": []}\n";
    CHECK_THROWS_AS(read_conversations(folder / "bad.jsonl", encode), Error);
    CHECK(hash_of(all) != hash_of(greedy));
}

TEST_CASE("the draft vocabulary is what many answers have, as far as text and coverage go") {
    const auto text = [](std::vector<TokenId> answer) {
        answer.insert(answer.begin(), 9);  // the prompt does not count
        return Conversation{.tokens = std::move(answer), .answer = 1};
    };
    const std::vector<Conversation> some{text({5, 5, 5, 5, 5}), text({3, 7, 4}), text({3, 4, 1}), text({4, 3, 4, 7})};
    using Tokens = std::vector<TokenId>;
    CHECK(frequent_tokens(some, 1) == Tokens{4});  // as many answers as 3, more often
    CHECK(frequent_tokens(some, 2) == Tokens{3, 4});
    CHECK(frequent_tokens(some, 3) == Tokens{3, 4, 7});
    CHECK(frequent_tokens(some, 4) == Tokens{3, 4, 5, 7});  // five times, in one answer
    CHECK(frequent_tokens(some, 100) == Tokens{1, 3, 4, 5, 7});
    CHECK(frequent_tokens(some, 0) == Tokens{1, 3, 4, 5, 7});

    std::vector<Conversation> many(20, text({2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}));
    many[0] = many[1] = text({6, 8});
    CHECK(frequent_tokens(many, 0) == Tokens{2});  // 98.8 % of all tokens
}

TEST_CASE("the drafter's layer groups the heads of any hidden size") {
    for (const auto& [hidden, heads, kv] : {std::tuple{576, 9, 3},
                                            {640, 10, 2},
                                            {768, 12, 4},
                                            {896, 14, 2},
                                            {1024, 16, 4},
                                            {2048, 32, 8},
                                            {448, 7, 1},
                                            {64, 1, 1},
                                            {80, 1, 1}}) {
        const LayerChoice layer = choose_layer(hidden, 0, 0, 0);
        CHECK((layer.heads == heads && layer.kv_heads == kv));
        CHECK(layer.intermediate % 64 == 0);
    }
    CHECK(choose_layer(640, 10, 5, 0).kv_heads == 5);
}

TEST_CASE("read_conversations: rows say by themselves whether they are raw text") {
    const fs::path folder = scratch();
    const PromptEncoder both{.chat = encode.chat, .raw = [](std::string_view text) {
                                 std::vector<TokenId> tokens = toy_tokens(text);
                                 tokens.insert(tokens.begin(), 7);  // unlike a conversation of the same words
                                 return tokens;
                             }};
    DistilledText text{.id = "a", .messages = {}, .prompt_tokens = 5, .temperature = 0, .answer = {}};
    text.raw = "abc", text.answer.tokens = {3, 1, 4}, text.answer.text = "def";
    const std::string raw = distilled_line(text);
    text.raw.reset(), text.messages = {{"user", "abc"}}, text.prompt_tokens = 4;
    std::ofstream(folder / "both.jsonl") << raw << "\n" << distilled_line(text) << "\n";
    const auto read = read_conversations(folder / "both.jsonl", both);
    REQUIRE(read.size() == 2);
    for (const Conversation& conversation : read) {
        const bool is_raw = conversation.row == 0;
        CHECK(conversation.answer == (is_raw ? 5 : 4));
        CHECK((conversation.tokens.front() == 7) == is_raw);
        CHECK(std::vector(conversation.tokens.end() - 3, conversation.tokens.end()) == std::vector<TokenId>{3, 1, 4});
    }
    CHECK_THROWS_WITH(read_conversations(folder / "both.jsonl", encode),
                      ContainsSubstring("line 1") && ContainsSubstring("raw text") && ContainsSubstring("no encoder"));
    CHECK_THROWS_WITH(read_conversations(folder / "both.jsonl", {.chat = {}, .raw = both.raw}),
                      ContainsSubstring("line 2") && ContainsSubstring("conversation"));
    std::ofstream(folder / "unclear.jsonl")
        << R"({"messages": [{"role": "user", "content": "a"}], "prompt": "a", "completion_ids": [1, 2]})";
    CHECK_THROWS_WITH(read_conversations(folder / "unclear.jsonl", both),
                      ContainsSubstring("messages") && ContainsSubstring("prompt"));
    std::ofstream(folder / "other.jsonl") << R"({"prompt": "abc", "prompt_tokens": 4, "completion_ids": [1, 2]})";
    CHECK_THROWS_WITH(read_conversations(folder / "other.jsonl", both), ContainsSubstring("another model"));
}

TEST_CASE("FeatureStore computes once, reads back, and computes a damaged shard again") {
    const fs::path folder = scratch();
    const auto text = read_conversations(toy_text(folder, 80), encode);
    ToyVerifier verifier;
    at::Tensor first;
    fs::path shard;
    {
        FeatureStore store(folder, "toy", kToyHidden, text, &verifier);
        first = store.features(3).clone();
        CHECK(verifier.calls == 64);
        CHECK(first.size(0) == static_cast<std::int64_t>(text[3].tokens.size()));
        CHECK(store.ready(63));
        CHECK(!store.ready(64));
        shard = store.folder() / "shard-00000.safetensors";
    }
    {
        FeatureStore store(folder, "toy", kToyHidden, text, nullptr);
        CHECK(at::equal(store.features(3), first));
        CHECK_THROWS_AS((void)store.features(70), Error);  // not there, and no target
    }
    fs::resize_file(shard, fs::file_size(shard) / 2);
    FeatureStore store(folder, "toy", kToyHidden, text, &verifier);
    CHECK(at::equal(store.features(3), first));
    CHECK(verifier.calls == 128);
    FeatureStore other(folder, "another target", kToyHidden, text, nullptr);
    CHECK_THROWS_AS((void)other.features(3), Error);
}

TEST_CASE("FeatureStore keeps layers side by side, in a folder of their own", "[features]") {
    const fs::path folder = scratch();
    const auto text = read_conversations(toy_text(folder, 70), encode);
    LayeredVerifier verifier;
    const std::vector<std::int64_t> layers{2, 3};
    constexpr std::int64_t H = kToyHidden;
    FeatureStore narrow(folder, "toy", H, text, &verifier), wide(folder, "toy", H, text, &verifier, layers),
        other(folder, "toy", H, text, &verifier, {3}), unread(folder, "toy", H, text, nullptr, layers);
    CHECK(FeatureStore(folder, "toy", H, text, nullptr, {}).folder() == narrow.folder());
    CHECK(std::set<fs::path>{narrow.folder(), wide.folder(), other.folder()}.size() == 3);
    CHECK(unread.folder() == wide.folder());

    const Prefill prompt{
        .sequence = 1, .tokens = text[3].tokens, .pending = text[3].tokens.back(), .features = {.layers = layers}};
    const at::Tensor all = verifier.prefill(std::span(&prompt, 1))[0].features.to(at::kHalf);  // final, 2, 3
    REQUIRE(all.size(1) == 3 * H);
    CHECK(at::equal(narrow.features(3), all.slice(1, 0, H)));
    CHECK(at::equal(wide.features(3), all));
    CHECK(at::equal(other.features(3), at::cat({all.slice(1, 0, H), all.slice(1, 2 * H)}, 1)));
    CHECK(unread.ready(3));
    CHECK(at::equal(unread.features(3), all));  // no target is needed for what is there
    // A verifier that delivers less than it promised.
    ToyVerifier poor;
    FeatureStore short_of_one(folder / "poor", "toy", H, text, &poor, layers);
    CHECK_THROWS_AS((void)short_of_one.features(3), Error);
    fs::remove_all(folder);
}

TEST_CASE("AnchorSampler: three epochs see every anchor once, in an order of the seed's") {
    const fs::path folder = scratch();
    const auto text = read_conversations(toy_text(folder, 130), encode);
    std::set<std::pair<std::size_t, std::int64_t>> seen;
    std::int64_t doubled = 0;
    AnchorSampler sampler(text, {1, 2}, 8, 64, 5), twin(text, {1, 2}, 8, 64, 5);
    std::vector<AnchorGroup> last;
    while (sampler.place().epoch < 3) {
        last = sampler.next();
        if (sampler.place().epoch == 3) break;
        for (const AnchorGroup& group : last)
            for (const std::int64_t n : group.committed) {
                CHECK(n >= text[group.conversation].answer - 1);
                CHECK(n + 1 < static_cast<std::int64_t>(text[group.conversation].tokens.size()));
                doubled += !seen.insert({group.conversation, n}).second;
            }
    }
    // The last batch reaches over the end of the third epoch, so that a few anchors are left out above.
    CHECK(doubled == 0);
    CHECK(seen.size() > 66 * 24 - 128);
    for (const auto& [conversation, n] : seen) CHECK(conversation >= 64);
    for (int i = 0; i < 5; ++i) (void)twin.next();
    const AnchorSampler::Place place = twin.place();
    const auto expected = twin.next();
    twin.restore({});
    twin.restore(place);
    const auto got = twin.next();
    REQUIRE(got.size() == expected.size());
    for (std::size_t i = 0; i < got.size(); ++i)
        CHECK((got[i].conversation == expected[i].conversation && got[i].committed == expected[i].committed));
}

TEST_CASE("AdamW takes the published step") {
    at::Tensor w = noise({6, 7}, 1, 1).to(at::kFloat), b = noise({5}, 2, 1).to(at::kFloat);
    at::Tensor expected_w = w.to(at::kDouble).clone(), m = at::zeros({6, 7}, at::kDouble), v = m.clone();
    w.set_requires_grad(true), b.set_requires_grad(true);
    AdamW optimiser({w, b}, {.weight_decay = 0.1, .clip = 1.0});
    ThreadTeam team(2);
    for (int step = 1; step <= 3; ++step) {
        const at::Tensor g = noise({6, 7}, 10 + static_cast<std::uint64_t>(step), 1);
        w.mutable_grad() = g.to(at::kFloat), b.mutable_grad() = at::zeros({5});
        const double norm = g.norm().item<double>();
        CHECK(optimiser.step(0.01, team) == Catch::Approx(norm).epsilon(1e-5));
        const at::Tensor clipped = g / std::max(1.0, norm);
        m = 0.9 * m + 0.1 * clipped, v = 0.95 * v + 0.05 * clipped * clipped;
        const at::Tensor mean = m / (1 - std::pow(0.9, step)), square = v / (1 - std::pow(0.95, step));
        expected_w = expected_w - 0.01 * 0.1 * expected_w - 0.01 * mean / (square.sqrt() + 1e-8);
        CHECK((w.detach().to(at::kDouble) - expected_w).abs().max().item<double>() < 1e-6);
    }
    const at::Tensor before = w.detach().clone();
    w.mutable_grad() = at::full({6, 7}, std::nan("")), b.mutable_grad() = at::zeros({5});
    CHECK(!std::isfinite(optimiser.step(0.01, team)));
    CHECK(at::equal(w.detach(), before));
    CHECK(optimiser.steps() == 3);
}
