// Tokenizer: what it does with odd bytes, special tokens and long words, and what it says of files it cannot use.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/core/error.hpp>
#include "formats/gguf.hpp"
#include <outrider/text/tokenizer.hpp>

#include "../formats/gguf_builder.hpp"
#include "../temporary_folder.hpp"
#include "tiny_vocabulary.hpp"

using namespace outrider;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using nlohmann::json;
using outrider::test::TemporaryFolder;
using outrider::test::tiny_json;

namespace {

std::shared_ptr<const Tokenizer> load(const json& root) {
    const TemporaryFolder folder;
    return Tokenizer::from_json(folder.write("tokenizer.json", root.dump()));
}

void check_fails(const json& root, const std::string& part) {
    INFO(part);
    CHECK_THROWS_MATCHES(load(root), Error, MessageMatches(ContainsSubstring(part)));
}

/// BPE as it is defined: the best pair, leftmost, again and again. Quadratic.
std::vector<TokenId> slow_bpe(const json& root, const std::string& word) {
    std::unordered_map<std::string, std::size_t> ranks;
    const json& merges = root["model"]["merges"];
    for (std::size_t i = 0; i < merges.size(); ++i) ranks.emplace(merges[i].get<std::string>(), i);
    std::vector<std::string> parts;
    for (const char c : word) parts.emplace_back(1, c);
    while (true) {
        std::size_t best = merges.size(), at = 0;
        for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
            const auto found = ranks.find(parts[i] + " " + parts[i + 1]);
            if (found != ranks.end() && found->second < best) best = found->second, at = i;
        }
        if (best == merges.size()) break;
        parts[at] += parts[at + 1];
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    std::vector<TokenId> ids;
    for (const std::string& part : parts) ids.push_back(root["model"]["vocab"][part].get<TokenId>());
    return ids;
}

}  // namespace

TEST_CASE("tokenizer: merging by heap is merging by definition") {
    // Random merges over four letters; words with many equal neighbours.
    for (int round = 0; round < 60; ++round) {
        const RandomKey key(11, 0, round);
        json root = tiny_json();
        json& vocabulary = root["model"]["vocab"];
        std::vector<std::string> known = {"a", "b", "c", "d"};
        for (std::uint64_t i = 0; i < 40; ++i) {
            const std::string left = known[key.bits(2 * i) % known.size()];
            const std::string right = known[key.bits(2 * i + 1) % known.size()];
            if (vocabulary.contains(left + right)) continue;
            vocabulary[left + right] = vocabulary.size();
            known.push_back(left + right);
            root["model"]["merges"].push_back(left + " " + right);
        }
        root["added_tokens"] = json::array();
        const auto tokenizer = load(root);
        for (std::uint64_t w = 0; w < 30; ++w) {
            std::string word;
            for (std::uint64_t i = 0; i < 1 + w * 3; ++i) word += "abcd"[key.bits(1000 + 100 * w + i) % (2 + w % 3)];
            REQUIRE(tokenizer->encode(word, SpecialText::plain) == slow_bpe(root, word));
        }
    }
}

TEST_CASE("tokenizer: a word of a million letters and a million spaces take no quadratic time") {
    const auto tokenizer = load(tiny_json());
    const std::string text = std::string(1'000'000, 'a') + std::string(1'000'000, ' ') + "\n";
    const auto ids = tokenizer->encode(text, SpecialText::plain);
    CHECK(tokenizer->decode(ids) == text);
}

TEST_CASE("tokenizer: ill-formed bytes count as replacement characters, in all texts") {
    const auto tokenizer = load(tiny_json());
    CHECK(tokenizer->decode(tokenizer->encode("a\xFFz", SpecialText::plain)) == "a\xEF\xBF\xBDz");
    CHECK(tokenizer->decode(tokenizer->encode("\xE2\x82", SpecialText::parse)) == "\xEF\xBF\xBD");
    for (int round = 0; round < 2000; ++round) {
        const RandomKey key(5, 1, round);
        std::string bytes;
        for (std::uint64_t i = 0; i < key.bits(99) % 30; ++i) bytes.push_back(static_cast<char>(key.bits(i)));
        REQUIRE(tokenizer->decode(tokenizer->encode(bytes, SpecialText::plain)) == to_valid_utf8(bytes));
    }
}

TEST_CASE("tokenizer: special tokens") {
    const auto tokenizer = load(tiny_json());
    const TokenId end = *tokenizer->find_special("<end>");
    const TokenId tool = *tokenizer->find_special("<tool>");
    CHECK(tokenizer->is_special(end));
    CHECK_FALSE(tokenizer->is_special(tool));
    CHECK(tokenizer->piece(end) == "<end>");
    CHECK(tokenizer->bytes(end).empty());
    CHECK(tokenizer->bytes(tool) == "<tool>");
    CHECK_FALSE(tokenizer->find_special("a"));
    CHECK(tokenizer->encode("<end>", SpecialText::parse) == std::vector<TokenId>{end});
    CHECK(tokenizer->encode("<end>", SpecialText::plain).size() == 5);
    CHECK(tokenizer->encode("<tool>", SpecialText::plain) == std::vector<TokenId>{tool});
    // The longest wins: <end>> is a token of its own.
    CHECK(tokenizer->encode("<end>>", SpecialText::parse).size() == 1);
    CHECK(tokenizer->encode("<end>>", SpecialText::parse) != std::vector<TokenId>{end});
    CHECK(tokenizer->encode("", SpecialText::parse).empty());
}

TEST_CASE("tokenizer: ids outside the vocabulary") {
    const auto tokenizer = load(tiny_json());
    const auto size = static_cast<TokenId>(tokenizer->size());
    // A model's output matrix may have more rows than the vocabulary has ids: those add nothing to a text.
    for (const TokenId id : {size, size + 1, size + 63, std::numeric_limits<TokenId>::max()}) {
        CHECK(tokenizer->bytes(id).empty());
        CHECK(tokenizer->piece(id).empty());
        CHECK_FALSE(tokenizer->is_special(id));
        CHECK_FALSE(tokenizer->is_added(id));
        CHECK(tokenizer->decode(std::vector<TokenId>{'a', id, 'b', id}) == "ab");
    }
    for (const TokenId id : {-1, std::numeric_limits<TokenId>::min()}) {
        CHECK_THROWS_AS(tokenizer->bytes(id), Error);
        CHECK_THROWS_AS(tokenizer->piece(id), Error);
        CHECK_THROWS_AS(tokenizer->is_special(id), Error);
        CHECK_THROWS_AS(tokenizer->decode(std::vector<TokenId>{0, id}), Error);
    }
}

TEST_CASE("tokenizer: bytes without a token are left out or unknown") {
    json root = tiny_json();
    const auto ab = root["model"]["vocab"]["ab"].get<TokenId>(), x = root["model"]["vocab"]["x"].get<TokenId>();
    root["model"]["vocab"].erase("q");
    const auto ids = [&](std::string_view text) { return load(root)->encode(text, SpecialText::plain); };
    CHECK(ids("aqb") == std::vector<TokenId>{ab});  // what is left is joined, as in `tokenizers`
    CHECK(ids("q").empty());
    CHECK(ids("qqqq xq") == std::vector<TokenId>{0x20, x});
    root["model"]["unk_token"] = "x";
    CHECK(ids("abqqab") == std::vector<TokenId>{ab, x, x, ab});
    root["model"]["fuse_unk"] = true;
    CHECK(ids("abqqabq") == std::vector<TokenId>{ab, x, ab, x});
    root["model"]["unk_token"] = "nowhere";
    check_fails(root, "unk_token nowhere");
}

TEST_CASE("tokenizer: the files beside a tokenizer.json") {
    const TemporaryFolder folder;
    const auto path = folder.write("tokenizer.json", tiny_json().dump());
    folder.write("tokenizer_config.json", R"({"bos_token": {"content": "<start>"}, "eos_token": "<end>",
                                              "add_bos_token": true, "chat_template": "source"})");
    auto tokenizer = Tokenizer::from_json(path);
    const auto start = tokenizer->find_special("<start>"), end = tokenizer->find_special("<end>");
    CHECK(tokenizer->bos() == start);
    CHECK_FALSE(tokenizer->adds_bos());  // beside a tokenizer.json its own template says so, or nobody
    CHECK(tokenizer->eos() == end);
    CHECK(tokenizer->end_ids() == std::vector<TokenId>{*end});
    CHECK(tokenizer->chat_template() == "source");
    folder.write("config.json", R"({"eos_token_id": 5})");
    CHECK(Tokenizer::from_json(path)->end_ids() == std::vector<TokenId>{5, *end});
    folder.write("generation_config.json", fmt::format(R"({{"eos_token_id": [{}, 3]}})", *end));
    folder.write("chat_template.jinja", "another");
    tokenizer = Tokenizer::from_json(path);
    CHECK(tokenizer->end_ids() == std::vector<TokenId>{3, *end});
    CHECK(tokenizer->chat_template() == "another");
    folder.write("generation_config.json", R"({"eos_token_id": 100000})");
    CHECK_THROWS_AS(Tokenizer::from_json(path), Error);
    folder.write("generation_config.json", R"({"eos_token_id": -2})");
    CHECK_THROWS_AS(Tokenizer::from_json(path), Error);
    folder.write("generation_config.json", R"({"eos_token_id": -1})");
    CHECK(Tokenizer::from_json(path)->end_ids() == std::vector<TokenId>{*end});
}

TEST_CASE("tokenizer: files that cannot be used say why") {
    const auto changed = [](const std::function<void(json&)>& change) {
        json root = tiny_json();
        change(root);
        return root;
    };
    check_fails(json::array(), "expected a JSON object");
    check_fails(changed([](json& r) { r["model"]["type"] = "Unigram"; }), "expected BPE");
    check_fails(changed([](json& r) {
                    r["model"]["byte_fallback"] = true;
                    r["model"]["vocab"].erase("q");
                }),
                "byte_fallback");
    check_fails(changed([](json& r) { r["model"]["dropout"] = 0.1; }), "dropout");
    check_fails(changed([](json& r) { r["model"].erase("vocab"); }), "model.vocab");
    check_fails(changed([](json& r) { r["model"]["merges"] = 5; }), "model.merges");
    check_fails(changed([](json& r) { r["model"]["merges"].push_back("a zzz"); }), "not in the vocabulary");
    check_fails(changed([](json& r) { r["model"]["merges"].push_back("ab"); }), "space between");
    check_fails(changed([](json& r) { r["model"]["merges"].push_back(json::array({"a"})); }), "two entries");
    check_fails(changed([](json& r) { r["model"]["vocab"]["zz"] = -3; }), "has the id -3");
    check_fails(changed([](json& r) { r["model"]["vocab"]["zz"] = 1000000000; }), "has the id 1000000000");
    check_fails(changed([](json& r) { r["model"]["vocab"]["zz"] = 0; }), "the id 0 belongs to");
    check_fails(changed([](json& r) { r["model"]["vocab"]["zz"] = "one"; }), "has the id \"one\"");
    for (const char* type : {"Precompiled", "BertNormalizer", "ByteLevel", "Unheard"}) {
        check_fails(changed([&](json& r) { r["normalizer"] = {{"type", type}}; }), type);
        check_fails(
            changed([&](json& r) { r["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", type}}}}}; }),
            type);
    }
    check_fails(changed([](json& r) { r["normalizer"] = {{"type", "Sequence"}}; }), "no list of normalizers");
    check_fails(changed([](json& r) { r["normalizer"] = {{"type", "Prepend"}}; }), "no string prepend");
    check_fails(changed([](json& r) { r["normalizer"] = {{"type", "Strip"}, {"strip_left", 1}}; }), "strip_left");
    check_fails(changed([](json& r) { r["normalizer"] = {{"type", "Replace"}, {"content", "x"}}; }), "Regex");
    check_fails(changed([](json& r) {
                    r["normalizer"] = {{"type", "Replace"}, {"content", "x"}, {"pattern", {{"Regex", "("}}}};
                }),
                "compiled");
    check_fails(changed([](json& r) { r["post_processor"] = {{"type", "Unheard"}}; }), "Unheard");
    check_fails(changed([](json& r) {
                    r["normalizer"] = {{"type", "Lowercase"}};
                    for (const char* text : {"<A>", "<a>"})
                        r["added_tokens"].push_back({{"id", r["model"]["vocab"].size() + r["added_tokens"].size()},
                                                     {"content", text},
                                                     {"normalized", true}});
                }),
                "another one after normalization");
    check_fails(changed([](json& r) {
                    r["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
                    r["added_tokens"].push_back(
                        {{"id", r["model"]["vocab"].size() + 4}, {"content", "  "}, {"normalized", true}});
                }),
                "leaves nothing");
    check_fails(changed([](json& r) { r["pre_tokenizer"] = nullptr; }), "pre-tokenizer");
    check_fails(changed([](json& r) { r["pre_tokenizer"] = {{"type", "Metaspace"}}; }), "Metaspace");
    check_fails(changed([](json& r) { r["pre_tokenizer"] = {{"type", "Digits"}}; }), "without ByteLevel");
    check_fails(changed([](json& r) { r["pre_tokenizer"] = {{"type", "BertPreTokenizer"}}; }), "BertPreTokenizer");
    check_fails(changed([](json& r) {
                    r["pre_tokenizer"] = {{"type", "Sequence"},
                                          {"pretokenizers", {{{"type", "Digits"}}, {{"type", "ByteLevel"}}}}};
                }),
                "after another");
    check_fails(changed([](json& r) { r["added_tokens"][0].erase("content"); }), "no content");
    check_fails(changed([](json& r) { r["added_tokens"][0]["content"] = nullptr; }), "no content");
    check_fails(changed([](json& r) { r["added_tokens"][0] = "<start>"; }), "no content");
    check_fails(changed([](json& r) { r["added_tokens"][0].erase("id"); }), "has the id null");
    check_fails(changed([](json& r) { r["added_tokens"][0]["id"] = -1; }), "has the id -1");
    check_fails(changed([](json& r) { r["added_tokens"][0]["id"] = 1ull << 32; }), "has the id 4294967296");
    check_fails(changed([](json& r) {
                    r["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
                }),
                "cannot be compiled");
    check_fails(changed([](json& r) {
                    r["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Shuffled"}};
                }),
                "Shuffled");
    json deep = 1;
    for (int i = 0; i < 100; ++i) deep = json{{"pretokenizers", {deep}}};
    check_fails(changed([&](json& r) { r["pre_tokenizer"] = deep; }), "levels");
    check_fails(changed([](json& r) { r["pre_tokenizer"] = {{"type", std::string(1000, 'x')}}; }), "...");
}

TEST_CASE("tokenizer: an expression that never ends is an error, not a hang") {
    json root = tiny_json();
    root["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers",
                              {{{"type", "Split"}, {"pattern", {{"Regex", "(a+)+(b|c)+$"}}}, {"behavior", "Isolated"}},
                               {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    const auto tokenizer = load(root);
    CHECK(tokenizer->encode("aab", SpecialText::plain).size() > 0);
    CHECK_THROWS_MATCHES(tokenizer->encode(std::string(64, 'a') + "!", SpecialText::plain), Error,
                         MessageMatches(ContainsSubstring("gives up")));
}

TEST_CASE("tokenizer: GGUF files that cannot be used say why") {
    const auto fails = [](const std::function<void(test::GgufBuilder&)>& build, const std::string& part) {
        test::GgufBuilder b;
        build(b);
        const GgufFile file = GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), "tiny.gguf");
        CHECK_THROWS_MATCHES(Tokenizer::from_gguf(file), Error, MessageMatches(ContainsSubstring(part)));
    };
    using B = test::GgufBuilder;
    const std::vector<std::string> tokens = {"a", "b", "ab", "<end>"};
    const auto whole = [&](B& b) -> B& {
        return b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
    };
    fails([](B&) {}, "tokenizer.ggml.model is missing");
    fails([](B& b) { b.text("tokenizer.ggml.model", "bert"); }, "\"bert\"");
    fails([](B& b) { b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "klingon"); }, "\"klingon\"");
    fails([&](B& b) { whole(b); }, "tokenizer.ggml.tokens is missing");
    fails([&](B& b) { whole(b).array<std::string>("tokenizer.ggml.tokens", {}); }, "0 tokens");
    fails([&](B& b) { whole(b).array("tokenizer.ggml.tokens", tokens); }, "tokenizer.ggml.merges is missing");
    const auto full = [&](B& b) -> B& {
        return whole(b).array("tokenizer.ggml.tokens", tokens).array<std::string>("tokenizer.ggml.merges", {"a b"});
    };
    fails([&](B& b) { full(b).array<std::int32_t>("tokenizer.ggml.token_type", {1}); }, "1 token types for 4 tokens");
    fails([&](B& b) { full(b).scalar<std::int32_t>("tokenizer.ggml.bos_token_id", 4); }, "bos id 4 is outside");
    fails([&](B& b) { full(b).scalar<std::int32_t>("tokenizer.ggml.eos_token_id", 77); }, "end id 77 is outside");
    fails([&](B& b) { full(b).scalar<std::int64_t>("tokenizer.ggml.eos_token_id", 1ll << 40); }, "no token id");
    fails([&](B& b) { full(b).scalar<std::int32_t>("tokenizer.ggml.eos_token_id", -2); }, "no token id");
    test::GgufBuilder good;
    full(good);
    const GgufFile file = GgufFile::parse(SharedBytes::copy(test::as_bytes(good.build())), "tiny.gguf");
    CHECK(Tokenizer::from_gguf(file)->encode("ab", SpecialText::plain) == std::vector<TokenId>{2});
}
