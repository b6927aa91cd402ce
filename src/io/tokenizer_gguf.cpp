#include <limits>

#include <outrider/core/error.hpp>
#include <outrider/io/gguf.hpp>
#include <outrider/io/tokenizer.hpp>

#include "tokenizer_state.hpp"

// Keys as in ggml's docs/gguf.md, "Tokenizer".
namespace outrider {
namespace {

enum class TokenKind : std::int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

std::optional<TokenId> find_id(const GgufFile& file, std::string_view key) {
    const auto value = file.find_integer(key);
    if (!value) return std::nullopt;
    require(*value >= 0 && *value <= std::numeric_limits<TokenId>::max(), "{}: {} is {}, which is no token id",
            file.name(), key, *value);
    return static_cast<TokenId>(*value);
}

void read_kinds(const GgufFile& file, TokenizerState& state) {
    constexpr const char* kKey = "tokenizer.ggml.token_type";
    if (!file.has(kKey)) return;
    const auto kinds = file.integers(kKey);
    require(kinds.size() == state.entries.size(), "{}: {} token types for {} tokens", file.name(), kinds.size(),
            state.entries.size());
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        const auto kind = static_cast<TokenKind>(kinds[i]);
        const bool special = kind == TokenKind::control || kind == TokenKind::unknown;
        if (!special && kind != TokenKind::user_defined) continue;
        state.added.push_back({static_cast<TokenId>(i), state.entries[i], special, false, false});
    }
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
    auto state = std::make_unique<TokenizerState>();
    const std::string model = file.string("tokenizer.ggml.model");
    require(model == "gpt2", "{}: the tokenizer is of the kind \"{}\"; expected byte-level BPE (\"gpt2\")",
            file.name(), model);
    const std::string rule = file.find_string("tokenizer.ggml.pre").value_or("default");
    state->words = detail::PreTokenizer::by_name(rule);
    state->entries = file.strings("tokenizer.ggml.tokens");
    require(!state->entries.empty() && state->entries.size() < (std::size_t{1} << 24), "{}: a vocabulary of {} tokens",
            file.name(), state->entries.size());
    read_kinds(file, *state);
    std::vector<std::pair<std::string, std::string>> merges;
    for (const std::string& line : file.strings("tokenizer.ggml.merges")) merges.push_back(split_merge(line));
    // ignore_merges of Llama 3's tokenizer.json, which GGUF has no key for. Bytes without a token are left out, as
    // llama.cpp does; its key for the unknown token is for other models.
    state->model.emplace(state->entries, merges, detail::BpeOptions{.whole_words = rule.starts_with("llama")});
    state->bos = find_id(file, "tokenizer.ggml.bos_token_id");
    state->adds_bos = file.find_boolean("tokenizer.ggml.add_bos_token").value_or(rule.starts_with("llama"));
    state->eos = find_id(file, "tokenizer.ggml.eos_token_id");
    for (const char* key : {"eot_token_id", "eom_token_id"}) {
        if (const auto id = find_id(file, std::string("tokenizer.ggml.") + key)) state->end_ids.push_back(*id);
    }
    state->chat_template = file.find_string("tokenizer.chat_template").value_or("");
    state->finish(file.name());
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace outrider
