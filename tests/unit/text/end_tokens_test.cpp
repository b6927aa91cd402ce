// Which tokens end a text: by the keys of GGUF and Hugging Face files, by the chat template, and by well-known names.
#include <catch2/catch_test_macros.hpp>

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/text/tokenizer.hpp>

#include "../formats/gguf_builder.hpp"
#include "../temporary_folder.hpp"
#include "formats/gguf.hpp"
#include "tiny_vocabulary.hpp"

using namespace outrider;
using nlohmann::json;
using test::GgufBuilder;
using Ids = std::vector<TokenId>;

namespace {

/// A byte-level GGUF vocabulary a, b, ab and `names`, whose types are `kind`.
template <typename More>
std::shared_ptr<const Tokenizer> with_names(const std::vector<std::string>& names, std::int32_t kind, More&& more) {
    std::vector<std::string> tokens = {"a", "b", "ab"};
    std::vector<std::int32_t> kinds = {1, 1, 1};
    for (const std::string& name : names) tokens.push_back(name), kinds.push_back(kind);
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2").array("tokenizer.ggml.tokens", tokens);
    b.array<std::string>("tokenizer.ggml.merges", {"a b"}).array("tokenizer.ggml.token_type", kinds);
    std::forward<More>(more)(b);
    return Tokenizer::from_gguf(GgufFile::parse(SharedBytes::copy(test::as_bytes(b.build())), "ends.gguf"));
}

std::shared_ptr<const Tokenizer> with_names(const std::vector<std::string>& names, std::int32_t kind = 3) {
    return with_names(names, kind, [](GgufBuilder&) {});
}

}  // namespace

TEST_CASE("tokenizer: ends by well-known names in GGUF files, whatever their type") {
    for (const char* name : {"<|eot_id|>",
                             "<|im_end|>",
                             "<|end|>",
                             "<|return|>",
                             "<|call|>",
                             "<end_of_turn>",
                             "<|endoftext|>",
                             "</s>",
                             "<|eom_id|>",
                             "<EOT>",
                             "_<EOT>",
                             "[EOT]",
                             "[EOS]",
                             "<|end_of_text|>",
                             "<end_of_utterance>",
                             "<eos>",
                             "<\uFF5C"
                             "end\u2581of\u2581sentence\uFF5C>",
                             "<|fim_pad|>",
                             "<PAD>",
                             "<|repo_name|>",
                             "<reponame>",
                             "<|file_sep|>"}) {
        INFO(name);
        for (const std::int32_t kind : {1, 3, 4}) {
            const auto tokenizer = with_names({name}, kind);
            CHECK(tokenizer->end_ids() == Ids{3});
            CHECK(tokenizer->is_special(3));
            CHECK(tokenizer->bytes(3).empty());
        }
    }
    for (const char* name :
         {"<|im_start|>", "<|start_header_id|>", "<s>", "<|END|>", "<|im_end|", "[INST]", "<|user|>", "</S>"})
        CHECK(with_names({name})->end_ids().empty());
    // Messages of channels end with <|return|> and <|call|>; their <|end|> is no end of the text.
    CHECK(with_names({"<|end|>", "<|return|>", "<|call|>"})->end_ids() == Ids{4, 5});
    CHECK(with_names({"<|end|>", "<|return|>"})->end_ids() == Ids{3, 4});
    CHECK(with_names({"</s>", "<|tool_response>"})->end_ids() == Ids{4});
}

TEST_CASE("tokenizer: ends by the keys of GGUF files") {
    const auto ends = [](const char* key) {
        return with_names({"<x>", "<y>"}, 3, [&](GgufBuilder& b) { b.scalar<std::uint32_t>(key, 4); })->end_ids();
    };
    for (const char* name : {"eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"})
        CHECK(ends((std::string("tokenizer.ggml.") + name + "_token_id").c_str()) == Ids{4});
    CHECK(ends("tokenizer.ggml.bos_token_id").empty());
    const auto both = with_names({"<|fim_pad|>", "<y>"}, 3, [](GgufBuilder& b) {
        b.scalar<std::uint32_t>("tokenizer.ggml.fim_pad_token_id", 4)
            .scalar<std::uint32_t>("tokenizer.ggml.eos_token_id", 0);
    });
    CHECK(both->end_ids() == Ids{0, 4});  // the key goes before the name
}

TEST_CASE("tokenizer: ends of a Hugging Face folder") {
    json root = test::tiny_json();
    const auto first = static_cast<TokenId>(root["model"]["vocab"].size() + root["added_tokens"].size());
    for (const char* name : {"<|endoftext|>", "<|end|>", "<|im_end|>"})
        root["added_tokens"].push_back({{"id", root["model"]["vocab"].size() + root["added_tokens"].size()},
                                        {"content", name},
                                        {"special", true}});
    const TokenId text = first, turn = first + 1, im = first + 2;
    const auto ends = [&](const json& files) {
        const test::TemporaryFolder folder;
        for (const auto& [name, content] : files.items()) folder.write(name, content.dump());
        return Tokenizer::from_json(folder.write("tokenizer.json", root.dump()))->end_ids();
    };
    CHECK(ends(json::object()) == Ids{text, turn, im});  // nobody names an end: all well-known ones
    CHECK(ends({{"generation_config.json", {{"eos_token_id", 5}}}}) == Ids{5, im});
    CHECK(ends({{"generation_config.json", {{"eos_token_id", {7, 5, 7}}}}, {"config.json", {{"eos_token_id", 9}}}}) ==
          Ids{5, 7, im});
    CHECK(ends({{"generation_config.json", {{"eos_token_id", nullptr}}}, {"config.json", {{"eos_token_id", 9}}}}) ==
          Ids{9, im});
    CHECK(ends({{"generation_config.json", {{"eos_token_id", -1}}},
                {"config.json", {{"eos_token_id", 9}}},
                {"tokenizer_config.json", {{"eos_token", "a"}}}}) == Ids{'a', im});
    const json with_template = {{"eos_token", "<|endoftext|>"},
                                {"chat_template", "{{ '<|user|>' + m.content + '<|end|>' }}"}};
    CHECK(ends({{"tokenizer_config.json", with_template}}) == Ids{text, turn, im});
    CHECK(ends({{"tokenizer_config.json", {{"eos_token", "<|endoftext|>"}}}}) == Ids{text, im});
    CHECK(ends({{"special_tokens_map.json", {{"eos_token", {{"content", "<|end|>"}}}}}}) == Ids{turn, im});
    CHECK(ends({{"tokenizer_config.json", {{"eos_token", "a"}}}, {"special_tokens_map.json", {{"eos_token", "b"}}}}) ==
          Ids{'a', 'b', im});
}
