// Constraints: the text of plain constrained decoding with any drafter, JSON that is always valid, and drafts that hold
// nothing forbidden.
#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>

#include <nlohmann/json.hpp>
#include <outrider/accept/match.hpp>
#include <outrider/core/constraint.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/ngram.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/text/grammar.hpp>

#include "fake_target.hpp"
#include "hostile_drafters.hpp"
#include "plain_loop.hpp"

using namespace outrider;
using namespace outrider::test;
using Json = nlohmann::ordered_json;

namespace {

/// ASCII letter by letter, and some longer words; token 0 ends the text and has no bytes.
class JsonWords final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        static const std::vector<std::string> kMore{"\": ", "{\"", "\", \"", "true", "null",
                                                    "12",   "ab",  "\"}",    "\":",  ", "};
        if (token == 0) return {};
        if (token < 96) return std::string(1, static_cast<char>(31 + token));
        return kMore.at(static_cast<std::size_t>(token - 96));
    }
};
constexpr std::int64_t kVocabulary = 106;

std::shared_ptr<const TokenTrie> trie() {
    static const auto shared = std::make_shared<const TokenTrie>(JsonWords{}, kVocabulary);
    return shared;
}

class Dice {
public:
    explicit Dice(std::uint64_t seed) : engine_(seed) {}
    std::int64_t operator()(std::int64_t low, std::int64_t high) {
        return std::uniform_int_distribution<std::int64_t>(low, high)(engine_);
    }

private:
    std::mt19937_64 engine_;
};

/// A schema whose texts all come to an end.
Json random_schema(Dice& dice, int depth) {
    switch (dice(depth > 2 ? 3 : 0, 8)) {
        case 0: {
            Json schema{{"type", "object"}, {"properties", Json::object()}};
            Json required = Json::array();
            for (std::int64_t i = dice(1, 4); i > 0; --i) {
                const std::string name = "k" + std::to_string(i);
                schema["properties"][name] = random_schema(dice, depth + 1);
                if (dice(0, 1) == 0) required.push_back(name);
            }
            if (!required.empty()) schema["required"] = required;
            return schema;
        }
        case 1:
            return {{"type", "array"},
                    {"items", random_schema(dice, depth + 1)},
                    {"minItems", dice(0, 1)},
                    {"maxItems", dice(1, 3)}};
        case 2: return {{"anyOf", {random_schema(dice, depth + 1), random_schema(dice, depth + 1)}}};
        case 3: return {{"type", "integer"}};
        case 4: return {{"type", "boolean"}};
        case 5: {
            Json schema{{"enum", {"red", "green blue", 7, nullptr}}};
            if (dice(0, 1) == 0) schema["type"] = dice(0, 1) == 0 ? Json("string") : Json{"integer", "null"};
            return schema;
        }
        case 6: return {{"const", {{"a", 1}}}};
        case 7: return {{"type", {"number", "null"}}};
        default: return {{"type", "string"}, {"minLength", dice(0, 2)}, {"maxLength", dice(2, 9)}};
    }
}

/// Whether a value is one of the schema's.
bool valid(const Json& schema, const Json& value) {
    if (schema.contains("anyOf"))
        return std::ranges::any_of(schema["anyOf"], [&](const Json& s) { return valid(s, value); });
    if (schema.contains("enum")) {
        const Json type = schema.value("type", Json());
        return std::ranges::find(schema["enum"], value) != schema["enum"].end() &&
               (type.is_null() || value.is_string() == type.is_string());
    }
    if (schema.contains("const")) return schema["const"] == value;
    if (schema["type"].is_array()) return value.is_number() || value.is_null();
    const auto type = schema["type"].get<std::string>();
    if (type == "integer") return value.is_number_integer();
    if (type == "boolean") return value.is_boolean();
    if (type == "string") {
        if (!value.is_string()) return false;
        std::size_t length = 0;
        for (const char c : value.get<std::string>()) length += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
        return length >= schema["minLength"].get<std::size_t>() && length <= schema["maxLength"].get<std::size_t>();
    }
    if (type == "array")
        return value.is_array() && value.size() >= schema["minItems"].get<std::size_t>() &&
               value.size() <= schema["maxItems"].get<std::size_t>() &&
               std::ranges::all_of(value, [&](const Json& item) { return valid(schema["items"], item); });
    if (!value.is_object()) return false;
    for (const Json& key : schema.value("required", Json::array()))
        if (!value.contains(key.get<std::string>())) return false;
    for (const auto& [key, item] : value.items())
        if (!schema["properties"].contains(key) || !valid(schema["properties"][key], item)) return false;
    return true;
}

/// Knows the constrained choice of the target, and is wrong now and then.
std::unique_ptr<OracleDraft> oracle(const FakeLaw& law, std::uint64_t seed, double right) {
    return std::make_unique<OracleDraft>(law, seed, right, true);
}

/// Thoughts, and an answer of three letters: the same text with drafts and without, which its grammar ends.
std::vector<TokenId> thought_over(const FakeLaw& law, ThinkingBudget::Options thinking,
                                  std::vector<std::pair<TokenId, float>> bias = {}) {
    thinking.answer = std::make_shared<const GrammarConstraint>(Grammar::parse("root ::= [a-f]{3}"), trie());
    const GenerationOptions options{.max_tokens = 100,
                                    .temperature = 1.0,
                                    .seed = law.seed,
                                    .end_ids = {0},
                                    .logit_bias = std::move(bias),
                                    .constraint = std::make_shared<const ThinkingBudget>(std::move(thinking))};
    SpeculativeDecoder plain{NoDraft{}, FakeTarget{law}, Match{}, {.nodes = 0}};
    SpeculativeDecoder drafted{RandomDraft{law, law.seed, 0.5}, FakeTarget{law}, Match{}, {.nodes = 6}};
    GenerationResult result = drafted.generate({{1}}, options);
    REQUIRE(result.tokens == plain.generate({{1}}, options).tokens);
    REQUIRE(result.finish == FinishReason::stop);
    return std::move(result.tokens);
}

void require_answer(std::span<const TokenId> tokens) {
    std::string text;
    for (const TokenId token : tokens) text += JsonWords{}.bytes(token);
    REQUIRE(text.size() == 3);
    REQUIRE(text.find_first_not_of("abcdef") == std::string::npos);
}

}  // namespace

TEST_CASE("random schemas: JSON is valid, and the same with and without drafts", "[property][constraint]") {
    std::int64_t rounds = 0, tokens = 0, plain_rounds = 0, plain_tokens = 0, free_rounds = 0, free_tokens = 0;
    constexpr int kSchemas = 2000, kPrompts = 5;
    for (int trial = 0; trial < kSchemas; ++trial) {
        Dice dice(static_cast<std::uint64_t>(trial));
        const Json schema = random_schema(dice, 0);
        CAPTURE(trial, schema.dump());
        const auto constraint = std::make_shared<const GrammarConstraint>(Grammar::json_schema(schema.dump()), trie());
        const FakeLaw law{.vocabulary = kVocabulary, .order = dice(1, 5), .seed = static_cast<std::uint64_t>(trial)};
        GenerationOptions options{.max_tokens = 3000,
                                  .temperature = dice(0, 1) == 0 ? 0.0 : 1.0,
                                  .seed = 5,
                                  .end_ids = {0},
                                  .constraint = constraint};
        if (dice(0, 3) == 0) options.frequency_penalty = 0.3;
        SpeculativeDecoder drafted{RandomDraft{law, 3, 0.5}, FakeTarget{law}, Match{}, {.nodes = dice(1, 9)}};
        std::map<SequenceId, std::vector<TokenId>> prompts;
        for (int i = 0; i < kPrompts; ++i) {
            std::vector<TokenId> prompt{static_cast<TokenId>(dice(1, 90)), static_cast<TokenId>(dice(1, 90))};
            prompts[drafted.join({prompt, {}, std::make_shared<JsonWords>()}, options)] = prompt;
        }
        drafted.run();
        const DecodeStats free = drafted.generate({{1, 2}}, {.max_tokens = 20, .seed = 5}).stats;
        free_rounds += free.rounds, free_tokens += free.tokens;
        for (const auto& [id, prompt] : prompts) {
            const GenerationResult result = drafted.take(id);
            SpeculativeDecoder alone{NoDraft{}, FakeTarget{law}, Match{}, {.nodes = 0}};
            const GenerationResult plain = alone.generate({prompt, {}, std::make_shared<JsonWords>()}, options);
            REQUIRE(result.tokens == plain.tokens);
            REQUIRE(result.finish == FinishReason::stop);
            const Json value = Json::parse(result.text, nullptr, false);
            CAPTURE(result.text);
            REQUIRE_FALSE(value.is_discarded());
            REQUIRE(valid(schema, value));
            rounds += result.stats.rounds, tokens += result.stats.tokens;
            plain_rounds += plain.stats.rounds, plain_tokens += plain.stats.tokens;
        }
    }
    const double beta = double(tokens) / double(rounds);
    CHECK(beta > 1.1 * double(plain_tokens) / double(plain_rounds));
    CHECK(beta > double(free_tokens) / double(free_rounds));  // the same drafter, nothing asked of the answer
    WARN(kSchemas * kPrompts << " texts, " << tokens << " tokens, beta " << beta);
}

TEST_CASE("a drafter that is right below the constraint is accepted", "[property][constraint]") {
    const FakeLaw law{.vocabulary = kVocabulary, .order = 3, .seed = 8};
    const auto constraint =
        std::make_shared<const GrammarConstraint>(Grammar::parse("root ::= [a-z]{40} [0-9]{40}"), trie());
    GenerationOptions options{.max_tokens = 200, .end_ids = {0}, .constraint = constraint};
    SpeculativeDecoder plain{NoDraft{}, FakeTarget{law}, Match{}, {.nodes = 0}};
    const GenerationResult expected = plain.generate({{5}, {}, std::make_shared<JsonWords>()}, options);
    CHECK(expected.text.size() == 80);
    auto draft = oracle(law, 1, 1.0);
    SamplingOptions knows;
    knows.logit_hook = [&](std::span<const TokenId> text, std::span<float> logits) {
        Constraint::State state = constraint->begin({.vocabulary = kVocabulary, .end_ids = {0}});
        for (const TokenId token : text.subspan(1)) {
            if (!constraint->allows(state, token)) return;
            state = constraint->next(state, token);
        }
        if (!constraint->finished(state)) constraint->mask(state, logits);
    };
    draft->asked_of_others = knows;
    SpeculativeDecoder drafted{std::move(draft), FakeTarget{law}, Match{}, {.nodes = 9}};
    const GenerationResult result = drafted.generate({{5}, {}, std::make_shared<JsonWords>()}, options);
    CHECK(result.tokens == expected.tokens);
    CHECK(result.stats.beta() > 4);
}

TEST_CASE("an answer that is whole before it begins is empty", "[property][constraint]") {
    const FakeLaw law{.vocabulary = kVocabulary};
    for (const bool thinks : {false, true}) {
        std::shared_ptr<const Constraint> nothing =
            std::make_shared<const GrammarConstraint>(Grammar::parse("root ::= \"\""), trie());
        if (thinks)
            nothing = std::make_shared<const ThinkingBudget>(
                ThinkingBudget::Options{.close = {60}, .budget = 2, .answer = nothing});
        for (const std::int64_t nodes : {0, 6}) {
            SpeculativeDecoder decoder{RandomDraft{law, 2, 0.4}, FakeTarget{law}, Match{}, {.nodes = nodes}};
            const GenerationResult result =
                decoder.generate({{1}}, {.max_tokens = 20, .end_ids = {0}, .constraint = nothing});
            CHECK(result.finish == FinishReason::stop);
            if (thinks)
                CHECK(result.tokens.back() == 60);
            else
                CHECK(result.tokens.empty());
            CHECK(decoder.generate({{1}}, {.max_tokens = 5}).tokens.size() == 5);
        }
    }
}

TEST_CASE("nothing forbidden is verified", "[property][constraint]") {
    struct Watching final : FakeTarget {
        using FakeTarget::FakeTarget;
        TreeOutput verify(std::span<const SequenceTree> trees) override {
            for (const SequenceTree& one : trees)
                for (std::size_t i = 1; i < one.tree.size(); ++i) drafted.insert(one.tree.tokens()[i]);
            return FakeTarget::verify(trees);
        }
        std::set<TokenId> drafted;
    };
    const FakeLaw law{.vocabulary = kVocabulary};
    Watching target(law);
    SpeculativeDecoder decoder{RandomDraft{law, 2, 0.4}, std::ref(target), Match{}, {.nodes = 40}};
    const auto digits = std::make_shared<const GrammarConstraint>(Grammar::parse("root ::= [0-9]{60}"), trie());
    (void)decoder.generate({{1}}, {.max_tokens = 100, .end_ids = {0}, .constraint = digits});
    for (const TokenId token : target.drafted) {
        const std::string word = JsonWords{}.bytes(token);
        CHECK(std::ranges::all_of(word, [](char c) { return c >= '0' && c <= '9'; }));
    }
    CHECK(target.drafted.size() > 3);
    target.drafted.clear();
    constexpr float kNever = -std::numeric_limits<float>::infinity();
    const GenerationResult result =
        decoder.generate({{1}}, {.max_tokens = 60, .logit_bias = {{7, kNever}, {9, 100.0F}}});
    CHECK_FALSE(target.drafted.contains(7));
    CHECK(std::ranges::count(result.tokens, 9) == 60);
}

TEST_CASE("what the grammar leaves no choice of is drafted without a drafter", "[property][constraint]") {
    const FakeLaw law{.vocabulary = kVocabulary};
    const auto constraint =
        std::make_shared<const GrammarConstraint>(Grammar::parse(R"(root ::= "{\"k\": " [0-9] "}" )"), trie());
    const GenerationOptions options{.max_tokens = 50, .end_ids = {0}, .constraint = constraint};
    SpeculativeDecoder plain{NoDraft{}, FakeTarget{law}, Match{}, {.nodes = 0}};
    SpeculativeDecoder drafted{NoDraft{}, FakeTarget{law}, Match{}, {.nodes = 4}};
    const Prompt prompt{{3}, {}, std::make_shared<JsonWords>()};
    const GenerationResult expected = plain.generate(prompt, options), result = drafted.generate(prompt, options);
    CHECK(result.tokens == expected.tokens);
    CHECK(result.finish == FinishReason::stop);
    CHECK(expected.stats.drafted == 0);
    CHECK(result.stats.drafted > 0);
}

TEST_CASE("biases, penalties and a least length are a plain loop's, with any draft", "[property][constraint]") {
    std::int64_t accepted = 0;
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        CAPTURE(seed);
        Dice dice(seed);
        const FakeLaw law{.vocabulary = 15, .order = dice(1, 4), .seed = seed};
        GenerationOptions options{
            .max_tokens = 40, .temperature = dice(0, 1) == 0 ? 0.0 : 1.1, .seed = seed, .end_ids = {4}};
        options.presence_penalty = dice(0, 1) == 0 ? 0.0 : 0.7;
        options.frequency_penalty = dice(0, 1) == 0 ? 0.0 : 0.4;
        options.min_tokens = dice(0, 20);
        if (dice(0, 1) == 0) options.logit_bias = {{3, 2.5F}, {5, -std::numeric_limits<float>::infinity()}};
        const std::vector<TokenId> prompt{1, 2, 1};
        GenerationOptions edited = options;  // the same, as a hook of the plain loop
        edited.logit_hook = [&](std::span<const TokenId> text, std::span<float> logits) {
            const auto answer = text.subspan(prompt.size());
            for (const auto& [token, bias] : options.logit_bias) logits[static_cast<std::size_t>(token)] += bias;
            for (std::size_t t = 0; t < logits.size(); ++t)
                if (const auto count = std::ranges::count(answer, static_cast<TokenId>(t)); count > 0)
                    logits[t] -=
                        static_cast<float>(options.presence_penalty + options.frequency_penalty * double(count));
            if (std::ssize(answer) < options.min_tokens) logits[4] = -std::numeric_limits<float>::infinity();
        };
        const std::vector<TokenId> expected = plain_loop(law, prompt, edited, 40);
        auto draft = oracle(law, seed, 0.8);
        draft->asked_of_others = edited.sampling();
        SpeculativeDecoder decoder{std::move(draft), FakeTarget{law}, Match{}, {.nodes = dice(0, 8)}};
        const GenerationResult result = decoder.generate({prompt}, options);
        REQUIRE(result.tokens == expected);
        REQUIRE((result.finish == FinishReason::length || std::ssize(result.tokens) > options.min_tokens));
        accepted += result.stats.accepted;
    }
    CHECK(accepted > 1000);
}

TEST_CASE("an answer without thoughts obeys its grammar too, where that is asked for", "[property][constraint]") {
    int thought = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        CAPTURE(seed);
        const ThinkingBudget::Options thinking{
            .close = {60, 61}, .budget = 9, .open = {50, 51}, .answer_at_once = true};
        const std::vector<TokenId> text =
            thought_over({.vocabulary = kVocabulary, .order = 2, .seed = seed}, thinking, {{50, 2.0F}});
        auto answer = text.begin();
        if (*answer == 50) {
            ++thought;
            REQUIRE(answer[1] == 51);
            answer = std::ranges::search(text, thinking.close).end();
        }
        require_answer({answer, text.end()});
    }
    CHECK(thought > 10);
    CHECK(thought < 190);
}

TEST_CASE("thoughts end within their budget, and the answer behind them obeys its grammar", "[property][constraint]") {
    int cut = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        CAPTURE(seed);
        Dice dice(seed);
        const std::int64_t order = dice(1, 3);
        const ThinkingBudget::Options thinking{.close = {60, 61, 62}, .budget = dice(0, 30)};
        const std::vector<TokenId> text =
            thought_over({.vocabulary = kVocabulary, .order = order, .seed = seed}, thinking);
        const auto end = std::ranges::search(text, thinking.close);
        REQUIRE_FALSE(end.empty());
        const auto thoughts = end.begin() - text.begin();
        REQUIRE(thoughts <= thinking.budget);
        cut += thoughts == thinking.budget ? 1 : 0;
        require_answer({end.end(), text.end()});
    }
    CHECK(cut > 100);
}
