// Grammars: what they accept, byte by byte, and what they refuse with a reason.
#include <catch2/catch_all.hpp>

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <outrider/core/error.hpp>
#include <outrider/text/grammar.hpp>

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Json = nlohmann::ordered_json;

namespace {

/// One token a byte, then some longer ones, two of them with the same bytes; the last is special.
class Words final : public Detokenizer {
public:
    [[nodiscard]] std::string bytes(TokenId token) const override {
        static const std::vector<std::string> kMore{"ab", "abc", "{\"", "\":", "true", "ab", " ", "\xC3\xA4", ""};
        if (token < 256) return std::string(1, static_cast<char>(token));
        return kMore.at(static_cast<std::size_t>(token - 256));
    }
};
constexpr std::int64_t kVocabulary = 265;
constexpr TokenId kEnd = 264;

std::shared_ptr<const TokenTrie> trie() {
    static const auto shared = std::make_shared<const TokenTrie>(Words{}, kVocabulary);
    return shared;
}

/// Whether the grammar derives `text`, taken byte by byte.
bool derives(const Grammar& grammar, std::string_view text) {
    const GrammarConstraint constraint(grammar, trie());
    Constraint::State state = constraint.begin({.vocabulary = kVocabulary, .end_ids = {kEnd}});
    for (const char c : text) {
        const auto token = static_cast<TokenId>(static_cast<unsigned char>(c));
        if (!constraint.allows(state, token)) return false;
        state = constraint.next(state, token);
    }
    return constraint.allows(state, kEnd);
}

}  // namespace

TEST_CASE("GBNF: literals, classes, groups and repetitions", "[grammar]") {
    const Grammar grammar = Grammar::parse(R"(
# a comment
root ::= greeting (" " name){1,2} [!?]* | "x" "\x41" "\u00e4"   # another
greeting ::= "hi" |
             "hello"
name ::= [a-zäöü] [^a-z "]? .?
)");
    for (const char* text :
         {"hi a", "hello a", "hi aB?!!", "hi ä", "hi aä", "hi a b", "xA\xC3\xA4", "hi a\xE2\x82\xACz"})
        CHECK(derives(grammar, text));
    for (const char* text : {"", "hi", "hi ", "hi A", "hi a b c d e", "hi a\xC3", "xA", "hello"})
        CHECK_FALSE(derives(grammar, text));
}

TEST_CASE("GBNF: counts of repetitions", "[grammar]") {
    const auto counts = [](const std::string& times) {
        std::string held;
        const Grammar grammar = Grammar::parse("root ::= \"a\"" + times);
        for (int n = 0; n < 9; ++n) held += derives(grammar, std::string(static_cast<std::size_t>(n), 'a')) ? '1' : '0';
        return held;
    };
    CHECK(counts("*") == "111111111");
    CHECK(counts("+") == "011111111");
    CHECK(counts("?") == "110000000");
    CHECK(counts("{3}") == "000100000");
    CHECK(counts("{2,}") == "001111111");
    CHECK(counts("{2,4}") == "001110000");
    CHECK(counts("{,2}") == "111000000");
    CHECK(counts("{0}") == "100000000");
}

TEST_CASE("GBNF: recursion follows brackets", "[grammar]") {
    const Grammar grammar = Grammar::parse(R"g(root ::= "(" root ")" root | "")g");
    CHECK(derives(grammar, "(()())()"));
    CHECK(derives(grammar, std::string(3000, '(') + std::string(3000, ')')));
    CHECK_FALSE(derives(grammar, "(()"));
    CHECK_FALSE(derives(grammar, "())"));
}

TEST_CASE("GBNF: what is none is refused, with its place", "[grammar]") {
    const auto because = [](const char* text, const char* why) {
        CHECK_THROWS_WITH(Grammar::parse(text), ContainsSubstring(why));
    };
    because("root = \"a\"", "line 1, column 6");
    because("root ::= other", "rule other is used and not defined");
    because("a ::= \"a\"", "no rule named root");
    because("root ::= \"a", "ends inside");
    because("root ::= (\"a\"", "expected )");
    because("root ::= \"a\"\nroot ::= \"b\"", "line 2");
    because("root ::= root \"a\"", "left recursion");
    because("root ::= a\na ::= \"b\"? root", "left recursion");
    because("root ::= (\"a\"*)*", "may be empty");
    because("root ::= \"a\"{3,1}", "below its first");
    because("root ::= [z-a]", "ends before it begins");
    because("root ::= \"\\q\"", "unknown escape");
    because("root ::= \"\\ud800\"", "no character");
    because("root ::= \"a\"{99999}", "up to 4096");
}

TEST_CASE("GBNF: what no text derives is refused, and paths without an end are not entered", "[grammar]") {
    for (const char* text : {"root ::= []", "root ::= \"a\" | []", "root ::= [^\\x00-\\U0010FFFF]"})
        CHECK_THROWS_WITH(Grammar::parse(text), ContainsSubstring("no character is of this class"));
    CHECK_THROWS_WITH(Grammar::parse("root ::= \"a\" root"), ContainsSubstring("no text ends"));
    CHECK_THROWS_WITH(Grammar::parse("root ::= \"a\" x\nx ::= \"b\" y\ny ::= \"c\" x"),
                      ContainsSubstring("no text ends"));
    CHECK_THROWS_WITH(
        Grammar::json_schema(R"({"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]})"),
        ContainsSubstring("no text ends"));
    const Grammar grammar = Grammar::parse("root ::= \"a\" | \"b\" x\nx ::= \"c\" x");
    CHECK(derives(grammar, "a"));
    const GrammarConstraint constraint(grammar, trie());
    CHECK_FALSE(constraint.allows(constraint.begin({.vocabulary = kVocabulary, .end_ids = {kEnd}}), 'b'));
}

TEST_CASE("GBNF: a text that is whole before it begins", "[grammar]") {
    const GrammarConstraint constraint(Grammar::parse("root ::= \"\""), trie());
    const Constraint::State state = constraint.begin({.vocabulary = kVocabulary, .end_ids = {kEnd}});
    CHECK(constraint.finished(state));
    CHECK(constraint.allows(state, kEnd));
    CHECK_FALSE(constraint.allows(state, 'a'));
    std::vector<float> row(kVocabulary, 1.0F);
    constraint.mask(state, row);
    CHECK(std::ranges::count(row, 1.0F) == 1);
}

TEST_CASE("the mask says what allows says, token by token", "[grammar]") {
    std::mt19937 random(3);
    const GrammarConstraint constraint(
        Grammar::json_schema(R"({"type": "object", "properties": {"ab": {"enum": ["abc", true]},
        "c": {"type": "array", "items": {"type": "number"}}}, "required": ["ab"]})"),
        trie());
    for (int trial = 0; trial < 20; ++trial) {
        Constraint::State state = constraint.begin({.vocabulary = kVocabulary, .end_ids = {kEnd}});
        for (int step = 0; step < 60; ++step) {
            std::vector<float> row(kVocabulary, 1.0F);
            constraint.mask(state, row);
            std::vector<TokenId> allowed;
            for (TokenId token = 0; token < kVocabulary; ++token) {
                const bool may = row[static_cast<std::size_t>(token)] > -std::numeric_limits<float>::infinity();
                REQUIRE(may == constraint.allows(state, token));
                if (may && token != kEnd) allowed.push_back(token);
            }
            REQUIRE(constraint.finished(state) == allowed.empty());
            if (allowed.empty()) break;
            const std::vector<TokenId> expected = constraint.expected(state);
            Constraint::State along = state;
            for (const TokenId token : expected) {
                REQUIRE(constraint.allows(along, token));
                along = constraint.next(along, token);
            }
            state = constraint.next(state, allowed[random() % allowed.size()]);
        }
    }
}

TEST_CASE("what a constraint remembers is bounded, also while one text runs", "[grammar]") {
    // Every bracket makes a state of its own, and every state a mask.
    const GrammarConstraint constraint(Grammar::parse(R"g(root ::= "(" root ")" root | "[" root "]" root | "")g"),
                                       trie());
    Constraint::State state = constraint.begin({.vocabulary = kVocabulary, .end_ids = {kEnd}});
    std::vector<TokenId> open;
    std::size_t most = 0, before = 0;
    int fresh = 0;  // machines
    std::mt19937 random(5);
    for (int step = 0; step < 120'000; ++step) {
        const bool closes = !open.empty() && random() % 100 < 45;
        const TokenId token = closes ? open.back() : random() % 2 == 0 ? '(' : '[';
        REQUIRE(constraint.allows(state, token));
        if (closes)
            open.pop_back();
        else
            open.push_back(token == '(' ? ')' : ']');
        if (step % 50 == 0) {
            std::vector<float> row(kVocabulary, 1.0F);
            constraint.mask(state, row);
            REQUIRE((row[')'] == 1.0F) == constraint.allows(state, ')'));
        }
        state = constraint.next(state, token);
        most = std::max(most, constraint.bytes());
        fresh += constraint.bytes() < before ? 1 : 0;
        before = constraint.bytes();
    }
    CHECK(most < GrammarConstraint::kMostBytes + (std::size_t{1} << 20));
    while (!open.empty()) {
        REQUIRE(constraint.allows(state, open.back()));
        REQUIRE_FALSE(constraint.allows(state, kEnd));
        state = constraint.next(state, open.back());
        open.pop_back();
    }
    CHECK(constraint.allows(state, kEnd));
    CHECK(fresh > 0);
}

TEST_CASE("a grammar is bounded, however it is written", "[grammar][schema]") {
    std::string many = "root ::= \"a\"";
    for (int i = 0; i < 17'000; ++i) many += " | \"" + std::to_string(i) + '"';
    CHECK_THROWS_WITH(Grammar::parse(many), ContainsSubstring("alternatives"));
    CHECK_THROWS_WITH(Grammar::parse("root ::= \"" + std::string(1000, 'a') + "\"{4096}"),
                      ContainsSubstring("symbols"));
    CHECK_THROWS_WITH(Grammar::parse("root ::= \"" + std::string(1000, 'a') + "\"{0,4096}"),
                      ContainsSubstring("symbols"));
    std::string one_after_another = "root ::=";
    for (int i = 0; i < 1000; ++i) one_after_another += " \"" + std::string(100, 'a') + "\"{4096}";
    CHECK_THROWS_WITH(Grammar::parse(one_after_another), ContainsSubstring("symbols"));
    Json schema{{"enum", Json::array()}};
    for (int i = 0; i < 16'000; ++i) schema["enum"].push_back(100'000 + 7 * i);
    CHECK(derives(Grammar::json_schema(schema.dump()), "100007"));
    for (int i = 0; i < 1000; ++i) schema["enum"].push_back(i);
    CHECK_THROWS_WITH(Grammar::json_schema(schema.dump()), ContainsSubstring("enum"));
    Json wide{{"type", "object"}, {"properties", Json::object()}};
    for (int i = 0; i < 2000; ++i)
        wide["properties"]["k" + std::to_string(i)] = {{"type", "string"}, {"maxLength", 4096}};
    CHECK_THROWS_WITH(Grammar::json_schema(wide.dump()), ContainsSubstring("symbols"));
}

TEST_CASE("what the grammar leaves no choice of is expected in the longest tokens", "[grammar]") {
    const GrammarConstraint constraint(Grammar::parse("root ::= \"ab\" \"abc\" [xy]"), trie());
    const Constraint::State state = constraint.begin({.vocabulary = kVocabulary, .end_ids = {kEnd}});
    CHECK(constraint.expected(state) == std::vector<TokenId>{256, 257});
    CHECK_THROWS_AS(constraint.next(state, 'x'), Error);
    CHECK_THROWS_AS(constraint.begin({.vocabulary = 10}), Error);
}

TEST_CASE("JSON schemas allow what they should, and name what they cannot", "[grammar][schema]") {
    const auto allows = [](const char* schema, const char* text) {
        return derives(Grammar::json_schema(schema), text);
    };
    CHECK(allows("{}", R"({"a": [1, -2.5e3, true, null, "x\n\u00e4"], "b": {}})"));
    CHECK_FALSE(allows("{}", "{\"a\" 1}"));
    CHECK_FALSE(allows("{}", "01"));
    CHECK_FALSE(allows("{}", R"("\ud800")"));
    const char* person = R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 3},
        "age": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 2}},
        "required": ["age"]})";
    for (const char* text :
         {R"({"age": 3})", R"({"name":"abc","age":3})", R"({"age":3,"tags":["a"]})", R"({"age":3,"tags":["a","b"]})"})
        CHECK(allows(person, text));
    for (const char* text : {"{}", R"({"name":"abcd","age":3})", R"({"age":3.5})", R"({"age":3,"tags":[]})",
                             R"({"age":3,"tags":["a","b","a"]})", R"({"age":3,"more":1})", R"({"tags":["a"],"age":3})"})
        CHECK_FALSE(allows(person, text));
    CHECK(allows(R"({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}})", "{}"));
    CHECK(allows(R"({"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}})", R"({"b":2})"));
    CHECK(allows(R"({"type": ["string", "null"], "maxLength": 1})", "null"));
    CHECK(allows(R"({"anyOf": [{"const": "x\"\\"}, {"type": "boolean"}]})", R"("x\"\\")"));
    CHECK(allows(R"({"type": "object", "additionalProperties": {"type": "integer"}})", R"({"k":1,"l":2})"));
    CHECK(allows(R"({"type": "array", "items": {"$ref": "#/$defs/leaf"}, "$defs": {"leaf": {"type": "null"}}})",
                 "[null]"));
    CHECK(allows(R"({"type": "object", "properties": {"next": {"$ref": "#"}}})", R"({"next":{"next":{}}})"));
    const auto because = [](const char* schema, const char* why) {
        CHECK_THROWS_WITH(Grammar::json_schema(schema), ContainsSubstring(why));
    };
    because("{", "JSON schema");
    because(R"({"type": "string", "pattern": "a"})", "pattern is not supported");
    because(R"({"properties": {"a": {"type": "integer", "minimum": 1}}})", "#/properties/a: minimum");
    because(R"({"oneOf": []})", "oneOf");
    because(R"({"type": "number", "required": []})", "required");
    because(R"({"type": "object", "properties": {}, "required": ["x"]})", "no property");
    because(R"({"$ref": "#/nowhere"})", "leads nowhere");
    because(R"({"type": "date"})", "unknown type");
}

TEST_CASE("JSON schemas: chains and nests have a depth, whatever they are made of", "[grammar][schema]") {
    for (const bool nested : {false, true}) {
        const auto chain = [&](int links) {
            Json document{{"$ref", "#/$defs/0"}, {"$defs", Json::array()}};
            for (int i = 1; i <= links; ++i) {
                const Json next{{"$ref", "#/$defs/" + std::to_string(i)}};
                document["$defs"].push_back(nested ? Json{{"anyOf", {next}}} : next);
            }
            document["$defs"].push_back(true);
            return document.dump();
        };
        CHECK(derives(Grammar::json_schema(chain(100)), "[1]"));
        for (const int links : {300, 3000, 30'000})
            CHECK_THROWS_WITH(Grammar::json_schema(chain(links)), ContainsSubstring("at most 256"));
    }
    // Each level names its type twice: written out, that would be 2^60 rules.
    std::string twice = "true";
    for (int i = 0; i < 60; ++i) twice = R"({"type": ["object", "object"], "properties": {"a": )" + twice + "}}";
    CHECK_THROWS_WITH(Grammar::json_schema(twice), ContainsSubstring("twice"));
}

TEST_CASE("JSON schemas: a type beside values holds for them", "[grammar][schema]") {
    const auto held = [](const char* schema) {
        std::string all;
        const Grammar grammar = Grammar::json_schema(schema);
        for (const char* text : {"\"a\"", "1", "1.0", "1.5", "true", "null", "[1]", "{\"a\":1}"})
            all += derives(grammar, text) ? '1' : '0';
        return all;
    };
    const auto with = [&](const std::string& type) {
        return held((R"({"enum": ["a", 1, 1.0, 1.5, true, null, [1], {"a": 1}])" + type + "}").c_str());
    };
    CHECK(with("") == "11111111");
    CHECK(with(R"(, "type": "string")") == "10000000");
    CHECK(with(R"(, "type": "integer")") == "01100000");
    CHECK(with(R"(, "type": "number")") == "01110000");
    CHECK(with(R"(, "type": "boolean")") == "00001000");
    CHECK(with(R"(, "type": "null")") == "00000100");
    CHECK(with(R"(, "type": "array")") == "00000010");
    CHECK(with(R"(, "type": "object")") == "00000001");
    CHECK(with(R"(, "type": ["string", "null"])") == "10000100");
    CHECK(held(R"({"const": 1, "type": "integer"})") == "01000000");
    const auto because = [](const char* schema, const char* why) {
        CHECK_THROWS_WITH(Grammar::json_schema(schema), ContainsSubstring(why));
    };
    because(R"({"type": "string", "const": 1})", "no value of const is of type string");
    because(R"({"type": ["string", "null"], "enum": [1, 2]})", "no value of enum is of type string or null");
    because(R"({"type": "text", "enum": [1, 2]})", "unknown type text");
    because(R"({"type": 7, "enum": [1, 2]})", "type must be a name");
}

TEST_CASE("JSON schemas: a count beyond what is supported is named with its place", "[grammar][schema]") {
    for (const std::string key : {"minLength", "maxLength", "minItems", "maxItems"})
        for (const std::string value : {"5000", "18446744073709551615"}) {
            const std::string type = key.ends_with("Length") ? "string" : "array";
            const std::string schema =
                R"({"properties": {"a": {"type": ")" + type + R"(", ")" + key + "\": " + value + "}}}";
            CHECK_THROWS_WITH(Grammar::json_schema(schema),
                              ContainsSubstring("#/properties/a: " + key + " is " + value + ", expected at most 4096"));
        }
    CHECK(
        derives(Grammar::json_schema(R"({"type": "string", "maxLength": 4096})"), '"' + std::string(4096, 'a') + '"'));
}
