#include <limits>

#include <outrider/core/error.hpp>
#include "formats/gguf.hpp"
#include <outrider/text/tokenizer.hpp>

#include "end_tokens.hpp"
#include "gguf_rules.hpp"
#include "tokenizer_state.hpp"

// Keys as in ggml's docs/gguf.md, "Tokenizer".
namespace outrider {
namespace {

using detail::PieceKind;

std::optional<TokenId> find_id(const GgufFile& file, std::string_view key) {
    const auto value = file.find_integer(key);
    if (!value) return std::nullopt;
    require(*value >= 0 && *value <= std::numeric_limits<TokenId>::max(), ErrorKind::damaged_file,
            "{}: {} is {}, which is no token id", file.name(), key, *value);
    return static_cast<TokenId>(*value);
}

void read_entries(const GgufFile& file, TokenizerState& state) {
    state.entries = file.strings("tokenizer.ggml.tokens");
    require(!state.entries.empty() && state.entries.size() < (std::size_t{1} << 24), ErrorKind::damaged_file,
            "{}: a vocabulary of {} tokens", file.name(), state.entries.size());
    for (std::size_t i = 0; i < state.entries.size(); ++i)
        if (!state.entries[i].empty()) state.ids.try_emplace(state.entries[i], static_cast<TokenId>(i));
}

/// `spaces`: entries write them as U+2581, and so do user-defined ones in older files; texts do not.
void read_kinds(const GgufFile& file, bool spaces, TokenizerState& state) {
    constexpr const char* kKey = "tokenizer.ggml.token_type";
    if (!file.has(kKey)) return;
    const auto kinds = file.integers(kKey);
    require(kinds.size() == state.entries.size(), ErrorKind::damaged_file, "{}: {} token types for {} tokens",
            file.name(), kinds.size(), state.entries.size());
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        const auto kind = static_cast<PieceKind>(kinds[i]);
        const bool special = kind == PieceKind::control || kind == PieceKind::unknown;
        if (!special && kind != PieceKind::user_defined) continue;
        std::string text = special || !spaces ? state.entries[i] : detail::bytes_of({state.entries[i], 0, kind});
        state.added.put({.id = static_cast<TokenId>(i), .text = std::move(text), .special = special});
    }
}

/// What llama.cpp knows by name: ends of texts and turns, whatever their types and whether or not a key names them.
void read_ends(const GgufFile& file, TokenizerState& state) {
    state.ends_by_name = true;
    const auto ends = [&](TokenId id) {
        require(static_cast<std::size_t>(id) < state.entries.size(), ErrorKind::damaged_file,
                "{}: the end id {} is outside the vocabulary of {}", file.name(), id, state.entries.size());
        state.added.put({.id = id, .text = state.entries[static_cast<std::size_t>(id)]});
        state.end_ids.push_back(id);
    };
    for (std::size_t i = 0; i < state.entries.size(); ++i)
        if (detail::is_known_end(state.entries[i]))
            state.added.put({.id = static_cast<TokenId>(i), .text = state.entries[i]});
    for (const char* key : {"eot_token_id", "eom_token_id"})
        if (const auto id = find_id(file, std::string("tokenizer.ggml.") + key)) ends(*id);
    for (const detail::FillMark& mark : detail::fill_marks()) {
        std::optional<TokenId> id = find_id(file, std::string("tokenizer.ggml.") + mark.key);
        for (const std::string_view name : mark.names)
            if (!id) id = state.find_entry(std::string(name));
        if (id) ends(*id);
    }
}

/// What each entry of a vocabulary of characters adds to a text: "<0x0A>" is a byte, U+2581 a space.
void spell_characters(const GgufFile& file, TokenizerState& state) {
    const auto kinds = file.integers("tokenizer.ggml.token_type");
    for (std::size_t i = 0; i < state.entries.size(); ++i)
        state.bytes.push_back(detail::bytes_of({state.entries[i], 0, static_cast<PieceKind>(kinds.at(i))}));
}

/// BPE by merges. Returns the flags of its rule.
detail::GgufRule read_merges(const GgufFile& file, const std::string& name, TokenizerState& state) {
    detail::GgufRule rule = detail::gguf_rule(name);
    state.words = rule.words;
    read_entries(file, state);
    read_kinds(file, rule.characters, state);
    std::vector<std::pair<std::string, std::string>> merges;
    for (const std::string& line : file.strings("tokenizer.ggml.merges")) merges.push_back(split_merge(line));
    // Bytes without a token are left out, as llama.cpp does; its key for the unknown token is for other models.
    state.model.emplace(state.entries, merges,
                        detail::BpeOptions{.whole_words = rule.whole_words, .characters = rule.characters});
    const bool prefix = file.find_boolean("tokenizer.ggml.add_space_prefix").value_or(false);
    if (rule.characters) spell_characters(file, state);
    if (rule.characters)
        state.marks = SpaceMarks{.prefix = prefix};
    else if (prefix)
        state.marks = SpaceMarks{.mark = " ", .prefix = true};
    state.leading_space = rule.characters && prefix;
    return rule;
}

/// SentencePiece BPE without normalisation: what the model "llama" means in llama.cpp. Its unigram models have another
/// name ("t5").
void read_pieces(const GgufFile& file, TokenizerState& state) {
    read_entries(file, state);
    read_kinds(file, true, state);
    const std::vector<double> scores = file.numbers("tokenizer.ggml.scores");
    const std::vector<std::int64_t> kinds = file.integers("tokenizer.ggml.token_type");
    require(scores.size() == state.entries.size(), ErrorKind::damaged_file, "{}: {} scores for {} tokens", file.name(),
            scores.size(), state.entries.size());
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
    state.leading_space = state.pieces->has_prefix();
}

/// The pre-tokenizer's name.
std::string rule_name(const GgufFile& file, const std::string& model) {
    return model == "gemma4" ? model : file.find_string("tokenizer.ggml.pre").value_or("default");
}

/// The id at `key`; in a SentencePiece vocabulary, where the key is left out, the id that llama.cpp then takes, if it
/// is a control token.
std::optional<TokenId> find_named(const GgufFile& file, const TokenizerState& state, const char* key, TokenId usual) {
    const auto id = find_id(file, std::string("tokenizer.ggml.") + key);
    if (id || !state.pieces) return id;
    const AddedToken* token = state.added.find(usual);
    return token != nullptr && token->special ? std::optional(usual) : std::nullopt;
}

/// The template, and others whose names a list holds.
void read_templates(const GgufFile& file, TokenizerState& state) {
    state.chat_template = file.find_string("tokenizer.chat_template").value_or("");
    if (!file.has("tokenizer.chat_templates")) return;
    for (const std::string& name : file.strings("tokenizer.chat_templates"))
        state.chat_templates.emplace_back(name, file.string("tokenizer.chat_template." + name));
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufFile& file) {
    auto state = std::make_unique<TokenizerState>();
    const std::string model = file.string("tokenizer.ggml.model");
    require(model == "gpt2" || model == "llama" || model == "gemma4", ErrorKind::damaged_file,
            "{}: the tokenizer is of the kind \"{}\"; expected byte-level BPE (\"gpt2\"), SentencePiece BPE "
            "(\"llama\") or \"gemma4\"",
            file.name(), model);
    bool adds_bos = true;  // SentencePiece
    if (model == "llama")
        read_pieces(file, *state);
    else
        adds_bos = read_merges(file, rule_name(file, model), *state).adds_bos;
    // Files of Gemma 4 say no, and the model needs it (llama.cpp overrides them too).
    if (model != "gemma4") adds_bos = file.find_boolean("tokenizer.ggml.add_bos_token").value_or(adds_bos);
    state->set_bos(find_named(file, *state, "bos_token_id", 1), adds_bos);
    state->eos = find_named(file, *state, "eos_token_id", 2);
    read_ends(file, *state);
    read_templates(file, *state);
    state->finish(file.name());
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace outrider
