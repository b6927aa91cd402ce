// Distilling: every prompt answered once, as plain decoding answers it, whatever the batch; overlap of prompts.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fmt/format.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/accept/match.hpp>
#include <outrider/core/error.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/train/distill.hpp>

#include "../../property/fake_target.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;

namespace {

AnyDecoder decoder(std::size_t batch) {
    return AnyDecoder(std::make_unique<NoDraft>(), std::make_unique<test::FakeTarget>(), std::make_unique<Match>(),
                      {.nodes = 0, .max_batch = batch});
}

DistillPrompt prompt(std::uint64_t i) {
    return {fmt::format("p{}", i),
            {.tokens = {1, static_cast<TokenId>(2 + i % 9)}, .end_ids = {0}},
            {{"user", fmt::format("question {}", i)}},
            i};
}

/// Ids to answers of prompts 0 .. count - 1.
std::map<std::string, std::vector<TokenId>> answers(std::size_t batch, std::uint64_t count) {
    AnyDecoder made = decoder(batch);
    std::map<std::string, std::vector<TokenId>> all;
    std::uint64_t i = 0;
    const DistillTotals totals = distill(
        made, [&] { return i < count ? std::optional(prompt(i++)) : std::nullopt; },
        [&](const DistilledText& text) {
            CHECK(made.active() + made.waiting() < batch + 1);
            CHECK(text.prompt_tokens == 2);
            CHECK(all.emplace(text.id, text.answer.tokens).second);
            return true;
        },
        {.max_tokens = 20, .temperature = 1.0, .seed = 4});
    CHECK(totals.texts == std::ssize(all));
    std::int64_t tokens = 0;
    for (const auto& [id, answer] : all) tokens += std::ssize(answer);
    CHECK(totals.tokens == tokens);
    return all;
}

/// A detokenizer of letters, so that made-up prompts are text.
class Letters final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId id) const override { return {"abcdefghi jkl"[id]}; }
};

}  // namespace

TEST_CASE("distill answers every prompt once, the same in every batch") {
    const auto alone = answers(1, 23);
    CHECK(alone.size() == 23);
    CHECK(answers(4, 23) == alone);
    CHECK(answers(64, 23) == alone);
    AnyDecoder plain = decoder(1);
    for (std::uint64_t i = 0; i < 23; ++i) {
        DistillPrompt p = prompt(i);
        CHECK(plain.generate(p.prompt, {.max_tokens = 20, .temperature = 1.0, .seed = 4, .stream = i}).tokens ==
              alone.at(p.id));
    }
}

TEST_CASE("distill stops when it is told to, and leaves the decoder usable") {
    AnyDecoder made = decoder(4);
    std::uint64_t i = 0, taken = 0;
    (void)distill(
        made, [&] { return std::optional(prompt(i++)); }, [&](const DistilledText&) { return ++taken < 5; },
        {.max_tokens = 8});
    CHECK(taken == 5);
    CHECK(made.active() + made.waiting() == 0);
    CHECK(made.generate(prompt(0).prompt, {.max_tokens = 3, .stop_at_end = false}).tokens.size() == 3);
}

TEST_CASE("a line of distilled text is JSON with valid UTF-8") {
    DistilledText text{"a\"b", {{"user", "x\xFF"}}, 7, 0.5, {}};
    text.answer.tokens = {3, 1};
    text.answer.text = "caf\xC3";
    const auto line = nlohmann::json::parse(distilled_line(text));
    CHECK(line.at("id") == "a\"b");
    CHECK(line.at("prompt_tokens") == 7);
    CHECK(line.at("completion_ids") == std::vector<int>{3, 1});
    CHECK(line.at("messages").size() == 2);
    CHECK(line.at("messages")[1].at("role") == "assistant");
    CHECK_FALSE(line.contains("prompt"));

    text.messages.clear(), text.raw = "once\xFF";
    const auto raw = nlohmann::json::parse(distilled_line(text));
    CHECK_FALSE(raw.contains("messages"));
    CHECK(raw.at("prompt") == "once\xEF\xBF\xBD");
    CHECK(raw.at("completion") == "caf\xEF\xBF\xBD");
    for (const char* same : {"id", "temperature", "finish", "prompt_tokens", "completion_ids"})
        CHECK(raw.at(same) == line.at(same));
}

TEST_CASE("overlap counts runs of six words, whatever their case and marks") {
    PromptOverlap overlap;
    overlap.add("Write a short poem about the sea, please!");
    CHECK_THAT(overlap.share("write A SHORT poem -- about the \"sea\" please"), WithinAbs(1.0, 0.0));
    CHECK(overlap.share("a short poem about the") == 0.0);
    // 10 words, 5 runs, of which the first 3 are in the prompt.
    CHECK_THAT(overlap.share("Write a short poem about the sea please and now"), WithinAbs(0.6, 1e-12));
    CHECK(overlap.share("words that nobody wrote before in any prompt of ours") == 0.0);
    CHECK(overlap.share("") == 0.0);
}

TEST_CASE("prompts that the target makes up differ, end by themselves and repeat with the seed") {
    const auto made_up = [](std::uint64_t first, std::size_t batch) {
        AnyDecoder sampler = decoder(batch);
        SelfPromptOptions options;
        options.drawing.seed = 2, options.at_once = 32, options.min_tokens = 2;
        const UserTurn opening{.prompt = {.tokens = {5}, .end_ids = {0}, .text = std::make_shared<Letters>()}};
        SelfPrompts prompts(
            sampler, opening,
            [](std::string_view text) { return Prompt{.tokens = std::vector<TokenId>(text.begin(), text.end())}; },
            options, first);
        std::vector<std::string> texts;
        for (int i = 0; i < 20; ++i) {
            const DistillPrompt p = prompts.next();
            CHECK(p.id == fmt::format("self/2/{}", p.stream));
            CHECK(p.prompt.tokens.size() == p.messages.at(0).content.size());
            texts.push_back(p.messages.at(0).content);
        }
        CHECK(prompts.drawn() >= 20 + prompts.dropped());
        return texts;
    };
    const auto texts = made_up(0, 8);
    CHECK(made_up(0, 3) == texts);
    CHECK(std::set<std::string>(texts.begin(), texts.end()).size() == texts.size());
    CHECK(made_up(1000, 8) != texts);
}

TEST_CASE("made-up beginnings of raw texts are cut at their length, differ and repeat with the seed") {
    const auto made_up = [](std::size_t batch, PromptOverlap excluded) {
        AnyDecoder sampler = decoder(batch);
        SelfPromptOptions options;
        options.drawing.seed = 2, options.at_once = 32, options.raw_tokens = 4;
        options.excluded = std::move(excluded), options.most_overlap = 0;
        const UserTurn opening{.prompt = {.tokens = {5}, .end_ids = {0}, .text = std::make_shared<Letters>()}};
        SelfPrompts prompts(
            sampler, opening,
            [](std::string_view text) { return Prompt{.tokens = std::vector<TokenId>(text.begin(), text.end())}; },
            options);
        std::vector<std::string> texts;
        for (int i = 0; i < 12; ++i) {
            const DistillPrompt p = prompts.next();
            CHECK(p.messages.empty());
            REQUIRE(p.raw.has_value());
            CHECK(p.raw->size() <= 4);  // one letter a token, spaces at the ends apart
            CHECK(p.prompt.tokens.size() == p.raw->size());
            texts.push_back(*p.raw);
        }
        CHECK(prompts.drawn() >= 12 + prompts.dropped());
        return texts;
    };
    const auto texts = made_up(8, {});
    CHECK(made_up(3, {}) == texts);
    CHECK(std::set<std::string>(texts.begin(), texts.end()).size() == texts.size());
}

TEST_CASE("raw texts go through distill under their own field") {
    AnyDecoder made = decoder(4);
    int left = 3;
    std::vector<DistilledText> texts;
    (void)distill(
        made,
        [&]() -> std::optional<DistillPrompt> {
            if (left-- == 0) return std::nullopt;
            DistillPrompt p = prompt(static_cast<std::uint64_t>(left));
            p.messages.clear(), p.raw = "text";
            return p;
        },
        [&](const DistilledText& text) { return texts.push_back(text), true; }, {.max_tokens = 3});
    REQUIRE(texts.size() == 3);
    for (const DistilledText& text : texts) CHECK((text.raw == "text" && text.messages.empty()));
}

TEST_CASE("made-up prompts: what cannot work is said") {
    AnyDecoder sampler = decoder(4);
    const UserTurn opening{.prompt = {.tokens = {5}, .end_ids = {0}, .text = std::make_shared<Letters>()}};
    const auto encode = [](std::string_view) { return Prompt{.tokens = {1}}; };
    SelfPromptOptions greedy;
    greedy.drawing.temperature = 0.0;
    CHECK_THROWS_AS(SelfPrompts(sampler, opening, encode, greedy), Error);
    SelfPromptOptions never;
    never.drawing.max_tokens = 1, never.min_tokens = 6, never.at_once = 4;
    SelfPrompts prompts(sampler, opening, encode, never);
    CHECK_THROWS_AS(prompts.next(), Error);
    SelfPromptOptions raw;
    raw.raw_tokens = -1;
    CHECK_THROWS_AS(SelfPrompts(sampler, opening, encode, raw), Error);
    raw.raw_tokens = 4000, raw.at_once = 4;  // every text ends before
    SelfPrompts whole(sampler, opening, encode, raw);
    CHECK_THROWS_WITH(whole.next(), ContainsSubstring("fewer tokens"));
}
