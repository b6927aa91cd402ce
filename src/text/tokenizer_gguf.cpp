#include <limits>

#include <outrider/core/error.hpp>
#include "formats/gguf.hpp"
#include <outrider/text/tokenizer.hpp>

#include "tokenizer_state.hpp"

// Keys as in ggml's docs/gguf.md, "Tokenizer".
namespace outrider {
namespace {

using detail::PieceKind;

std::optional<TokenId> find_id(const GgufFile& file, std::string_view key) {
    const auto value = file.find_integer(key);
    if (!value) return std::nullopt;
    require(*value >= 0 && *value <= std::numeric_limits<TokenId>::max(), "{}: {} is {}, which is no token id",
            file.name(), key, *value);
    return static_cast<TokenId>(*value);
}

void read_entries(const GgufFile& file, TokenizerState& state) {
    state.entries = file.strings("tokenizer.ggml.tokens");
    require(!state.entries.empty() && state.entries.size() < (std::size_t{1} << 24), "{}: a vocabulary of {} tokens",
            file.name(), state.entries.size());
}

void read_kinds(const GgufFile& file, TokenizerState& state) {
    constexpr const char* kKey = "tokenizer.ggml.token_type";
    if (!file.has(kKey)) return;
    const auto kinds = file.integers(kKey);
    require(kinds.size() == state.entries.size(), "{}: {} token types for {} tokens", file.name(), kinds.size(),
            state.entries.size());
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        const auto kind = static_cast<PieceKind>(kinds[i]);
        const bool special = kind == PieceKind::control || kind == PieceKind::unknown;
        if (!special && kind != PieceKind::user_defined) continue;
        state.added.push_back({static_cast<TokenId>(i), state.entries[i], special, false, false});
    }
}

void read_byte_level(const GgufFile& file, TokenizerState& state) {
    const std::string rule = file.find_string("tokenizer.ggml.pre").value_or("default");
    state.words = detail::PreTokenizer::by_name(rule);
    read_entries(file, state);
    read_kinds(file, state);
    std::vector<std::pair<std::string, std::string>> merges;
    for (const std::string& line : file.strings("tokenizer.ggml.merges")) merges.push_back(split_merge(line));
    // ignore_merges of Llama 3's tokenizer.json, which GGUF has no key for. Bytes without a token are left out, as
    // llama.cpp does; its key for the unknown token is for other models.
    state.model.emplace(state.entries, merges, detail::BpeOptions{.whole_words = rule.starts_with("llama")});
    state.adds_bos = rule.starts_with("llama");
}

/// SentencePiece BPE without normalisation: what the model "llama" means in llama.cpp. Its unigram models have another
/// name ("t5").
void read_pieces(const GgufFile& file, TokenizerState& state) {
    read_entries(file, state);
    read_kinds(file, state);
    const std::vector<double> scores = file.numbers("tokenizer.ggml.scores");
    const std::vector<std::int64_t> kinds = file.integers("tokenizer.ggml.token_type");
    require(scores.size() == state.entries.size(), "{}: {} scores for {} tokens", file.name(), scores.size(),
            state.entries.size());
    const auto unknown = static_cast<std::size_t>(find_id(file, "tokenizer.ggml.unknown_token_id").value_or(0));
    detail::SentencePieceFile pieces;
    pieces.bpe = true;
    pieces.collapse_spaces = false;
    pieces.dummy_prefix = file.find_boolean("tokenizer.ggml.add_space_prefix").value_or(true);
    for (std::size_t i = 0; i < state.entries.size(); ++i) {
        const auto kind = static_cast<PieceKind>(kinds[i]);
        detail::Piece piece{state.entries[i], static_cast<float>(scores[i]), kind};
        state.bytes.push_back(detail::bytes_of(piece));
        // Added tokens are found before the library sees a text; it wants one unknown token, no more.
        if (kind == PieceKind::unknown || kind == PieceKind::user_defined) piece.kind = PieceKind::control;
        if (kinds[i] == 0) piece.kind = PieceKind::normal;
        if (i == unknown) piece.kind = PieceKind::unknown, pieces.unknown = piece.text;
        pieces.byte_fallback = pieces.byte_fallback || kind == PieceKind::byte;
        pieces.pieces.push_back(std::move(piece));
    }
    state.pieces.emplace(pieces, false, file.name());
    state.adds_bos = true;
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
    auto state = std::make_unique<TokenizerState>();
    const std::string model = file.string("tokenizer.ggml.model");
    require(model == "gpt2" || model == "llama", "{}: the tokenizer is of the kind \"{}\"; expected byte-level BPE "
            "(\"gpt2\") or SentencePiece (\"llama\")", file.name(), model);
    if (model == "gpt2") read_byte_level(file, *state);
    else read_pieces(file, *state);
    state->bos = find_id(file, "tokenizer.ggml.bos_token_id");
    state->adds_bos = file.find_boolean("tokenizer.ggml.add_bos_token").value_or(state->adds_bos);
    state->eos = find_id(file, "tokenizer.ggml.eos_token_id");
    for (const char* key : {"eot_token_id", "eom_token_id"}) {
        if (const auto id = find_id(file, std::string("tokenizer.ggml.") + key)) state->end_ids.push_back(*id);
    }
    state->chat_template = file.find_string("tokenizer.chat_template").value_or("");
    state->finish(file.name());
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace outrider
