// Pre-tokenizers that GGUF files name, against Python's `tokenizers` (tests/oracle/make_words_golden.py).
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/core/error.hpp>
#include <outrider/text/tokenizer.hpp>

#include "../formats/gguf_builder.hpp"
#include "formats/gguf.hpp"
#include "text/gguf_rules.hpp"
#include "text/merge_bpe.hpp"
#include "text/sentencepiece_file.hpp"

using namespace outrider;
using namespace outrider::detail;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using outrider::test::GgufBuilder;

namespace {

const std::filesystem::path kGolden = OUTRIDER_SOURCE_DIR "/tests/golden/tokenizer";

json read(const std::filesystem::path& path) { return json::parse(std::ifstream(path)); }

std::vector<std::size_t> sizes(const PreTokenizer& rule, const std::string& text) {
    std::vector<std::size_t> result;
    for (const std::string_view word : rule.words(text)) result.push_back(word.size());
    return result;
}

/// The golden strings, and how each rule cuts them.
struct Words {
    std::vector<std::string> strings = read(kGolden / "strings.json").get<std::vector<std::string>>();
    std::map<std::string, std::vector<std::vector<std::size_t>>> rules;

    Words() {
        const json root = read(kGolden / "words.json");
        for (const json& text : root["strings"]) strings.push_back(text.get<std::string>());
        rules = root["rules"].get<decltype(rules)>();
    }
};

/// Names that share a rule with another.
const std::map<std::string, std::vector<std::string>> kAliases = {
    {"gpt-2",
     {"default", "mpt", "olmo", "jais", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion",
      "granite-docling"}},
    {"smollm", {"starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"}},
    {"llama-bpe",
     {"llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "smaug-bpe", "dbrx", "chatglm-bpe",
      "glm4", "glm5"}},
    {"qwen2", {"deepseek-r1-qwen", "stablelm2", "megrez", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2"}},
    {"gpt-4o", {"llama4", "kanana2", "talkie", "minimax-m2"}},
    {"deepseek-v3", {"hunyuan-dense", "joyai-llm", "hy_v4"}},
    {"bloom", {"poro-chat", "gpt3-finnish"}}};

/// A vocabulary of all bytes, "ab" by a merge, "abc" as a whole word alone, and <s>, which is bos.
GgufBuilder tiny(const std::string& rule) {
    std::vector<std::string> tokens;
    for (unsigned byte = 0; byte < 256; ++byte) tokens.push_back(entry_of_byte(static_cast<std::uint8_t>(byte)));
    tokens.insert(tokens.end(), {"ab", "abc", "<s>"});
    std::vector<std::int32_t> kinds(tokens.size(), 1);
    kinds.back() = 3;
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", rule).array("tokenizer.ggml.tokens", tokens);
    b.array("tokenizer.ggml.merges", std::vector<std::string>{"a b"}).array("tokenizer.ggml.token_type", kinds);
    b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 258);
    return b;
}

std::shared_ptr<const Tokenizer> load(const GgufBuilder& b) {
    return Tokenizer::from_gguf(GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), "tiny.gguf"));
}

/// The small vocabulary of Gemma 4's form as a GGUF file.
GgufBuilder gemma4(const json& root) {
    const json& model = root["model"];
    std::vector<std::string> tokens(model["vocab"].size());
    std::vector<std::int32_t> kinds(tokens.size(), 1);
    for (const auto& [token, id] : model["vocab"].items()) {
        tokens.at(id.get<std::size_t>()) = token;
        if (token.starts_with("<0x")) kinds.at(id.get<std::size_t>()) = 6;
    }
    std::fill_n(kinds.begin(), 4, 3);  // <pad>, <eos>, <bos>, <unk>
    std::vector<std::string> merges;
    for (const json& merge : model["merges"])
        merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gemma4").array("tokenizer.ggml.tokens", tokens);
    b.array("tokenizer.ggml.merges", merges).array("tokenizer.ggml.token_type", kinds);
    b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 2).scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", 1);
    return b;
}

}  // namespace

TEST_CASE("gguf rules: words of every rule and of every name for it") {
    const Words words;
    std::set<std::string> seen;
    for (const auto& [name, cuts] : words.rules) {
        REQUIRE(cuts.size() == words.strings.size());
        std::vector<std::string> names = {name};
        if (kAliases.contains(name)) names.insert(names.end(), kAliases.at(name).begin(), kAliases.at(name).end());
        for (const std::string& one : names) {
            const GgufRule rule = gguf_rule(one);
            seen.insert(one);
            for (std::size_t i = 0; i < cuts.size(); ++i) {
                INFO(one << ", string " << i << ": " << json(words.strings[i]));
                CHECK(sizes(rule.words, words.strings[i]) == cuts[i]);
            }
        }
    }
    const auto all = gguf_rule_names();
    CHECK(std::set<std::string>(all.begin(), all.end()) == seen);
    CHECK(all.size() == seen.size());  // no name twice
}

TEST_CASE("gguf rules: no two rules cut the strings alike") {
    const Words words;
    for (const auto& [name, cuts] : words.rules)
        for (const auto& [other, others] : words.rules) CHECK((name == other || cuts != others));
}

TEST_CASE("gguf rules: whole words and bos by name, and bos by key") {
    const std::set<std::string> whole = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral",
                                         "midm-2.0",  "lfm2",   "tekken",   "glm4",    "glm5",      "minicpm5"};
    const std::set<std::string> bos = {"llama-bpe", "llama3",   "llama-v3", "falcon3", "falcon-h1",
                                       "pixtral",   "midm-2.0", "lfm2",     "tekken"};
    for (const std::string& name : gguf_rule_names()) {
        if (name == "gemma4") continue;  // another kind of vocabulary
        INFO(name);
        const auto usual = load(tiny(name));
        const auto expected = whole.contains(name) ? std::vector<TokenId>{257} : std::vector<TokenId>{256, 'c'};
        CHECK(usual->encode("abc", SpecialText::plain) == expected);
        CHECK(usual->adds_bos() == bos.contains(name));
        CHECK(usual->bos() == 258);
        for (const bool adds : {false, true}) {
            GgufBuilder b = tiny(name);
            b.scalar("tokenizer.ggml.add_bos_token", adds).scalar("tokenizer.ggml.add_eos_token", true);
            CHECK(load(b)->leading_ids() == (adds ? std::vector<TokenId>{258} : std::vector<TokenId>{}));
        }
    }
}

TEST_CASE("gguf rules: a space before texts where the file says so") {
    for (const std::string name : {"gpt-2", "qwen2", "tekken"}) {
        GgufBuilder b = tiny(name);
        b.scalar("tokenizer.ggml.add_space_prefix", true);
        CHECK(load(b)->encode("ab", SpecialText::plain) == std::vector<TokenId>{' ', 256});
        CHECK(load(b)->encode(" ab", SpecialText::plain) == std::vector<TokenId>{' ', 256});
        CHECK(load(tiny(name))->encode("ab", SpecialText::plain) == std::vector<TokenId>{256});
    }
}

TEST_CASE("gguf rules: a name that is not known") {
    for (const std::string name : {"no-such-rule", "", "Qwen2", "qwen", "llama"})
        CHECK_THROWS_MATCHES(
            load(tiny(name)), Error,
            MessageMatches(ContainsSubstring("\"" + name + "\"") && ContainsSubstring("deepseek-llm")));
}

TEST_CASE("gguf rules: Gemma 4, merges over characters with bytes for the others") {
    const json root = read(kGolden / "gemma4" / "tokenizer.json"), golden = read(kGolden / "gemma4" / "ids.json");
    const auto tokenizer = load(gemma4(root));
    const auto from_json = Tokenizer::from_json(kGolden / "gemma4" / "tokenizer.json");
    const std::vector<std::string> strings = Words().strings;
    REQUIRE(golden["plain"].size() == strings.size());
    for (std::size_t i = 0; i < strings.size(); ++i) {
        INFO("string " << i << ": " << json(strings[i]));
        const auto plain = tokenizer->encode(strings[i], SpecialText::plain);
        CHECK(plain == golden["plain"][i].get<std::vector<TokenId>>());
        CHECK(from_json->encode(strings[i], SpecialText::plain) == plain);
        CHECK(tokenizer->encode(strings[i], SpecialText::parse) == golden["parse"][i].get<std::vector<TokenId>>());
        CHECK(tokenizer->decode(plain) == strings[i]);
    }
    CHECK(tokenizer->leading_ids() == std::vector<TokenId>{2});
    GgufBuilder denied = gemma4(root);  // some files deny bos, which the model needs
    denied.scalar("tokenizer.ggml.add_bos_token", false);
    CHECK(load(denied)->leading_ids() == std::vector<TokenId>{2});
    GgufBuilder prefixed = gemma4(root);
    prefixed.scalar("tokenizer.ggml.add_space_prefix", true);
    CHECK(load(prefixed)->encode("ab", SpecialText::plain) == tokenizer->encode(" ab", SpecialText::plain));
    CHECK(load(prefixed)->decode(load(prefixed)->encode("ab", SpecialText::plain)) == "ab");
}

TEST_CASE("gguf rules: Gemma's SentencePiece, runs of spaces as tokens of their own") {
    const std::string mark(kSpaceMark);
    for (const std::string& run : {std::string("  "), mark + mark}) {  // newer and older files
        const std::vector<std::string> tokens = {"<pad>", "<eos>", "<bos>",    "<unk>", mark,
                                                 run,     "a",     mark + "a", "\n\n",  "\n"};
        const std::vector<float> scores = {0, 0, 0, 0, -2, -1000, -3, -1, -1000, -4};
        const std::vector<std::int32_t> kinds = {3, 3, 3, 2, 1, 4, 1, 1, 4, 1};
        GgufBuilder b;
        b.text("tokenizer.ggml.model", "llama")
            .text("tokenizer.ggml.pre", "default")
            .array("tokenizer.ggml.tokens", tokens);
        b.array("tokenizer.ggml.scores", scores).array("tokenizer.ggml.token_type", kinds);
        b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 2)
            .scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", 1);
        b.scalar<std::uint32_t>("tokenizer.ggml.unknown_token_id", 3).scalar("tokenizer.ggml.add_space_prefix", false);
        const auto tokenizer = load(b);
        const auto check = [&](const std::string& text, const std::vector<TokenId>& ids) {
            INFO(json(text));
            CHECK(tokenizer->encode(text, SpecialText::plain) == ids);
            CHECK(tokenizer->decode(ids) == text);
        };
        check("a", {6});
        check(" a", {7});
        check("  a", {5, 6});
        check("   a", {5, 7});
        check("a  a", {6, 5, 6});
        check("a\n\n\na", {6, 8, 9, 6});
        CHECK(tokenizer->leading_ids() == std::vector<TokenId>{2});
        CHECK(tokenizer->encode("", SpecialText::plain).empty());
    }
}
