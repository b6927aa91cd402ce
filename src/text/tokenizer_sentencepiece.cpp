#include <algorithm>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/mapped_file.hpp>
#include <outrider/text/tokenizer.hpp>

#include <outrider/formats/detail/json_text.hpp>

#include "folder_tokens.hpp"
#include "tokenizer_state.hpp"

// tokenizer.model, and what Hugging Face's libraries put beside it.
namespace outrider {
namespace {

using detail::field;
using detail::flag;
using detail::Json;
using detail::PieceKind;
using detail::text;

/// A vocabulary that is being read.
struct Draft {
    std::string name;
    detail::SentencePieceFile file;
    TokenizerState& state;

    /// Pieces that stand for themselves only: they are found in text by their names, or not at all.
    void take_pieces() {
        for (std::size_t i = 0; i < file.pieces.size(); ++i) {
            const detail::Piece& piece = file.pieces[i];
            state.entries.push_back(piece.text);
            state.bytes.push_back(detail::bytes_of(piece));
            const bool special = piece.kind == PieceKind::control || piece.kind == PieceKind::unknown;
            if (!special && piece.kind != PieceKind::user_defined) continue;
            state.added.put(
                {.id = static_cast<TokenId>(i), .text = piece.text, .special = special, .own_search = special});
        }
        for (std::size_t i = 0; i < state.entries.size(); ++i)
            state.ids.try_emplace(state.entries[i], static_cast<TokenId>(i));
        state.set_bos(special_id(file.bos), true);
        state.eos = special_id(file.eos);
    }

    /// A token that was added after training, or a piece that has become one: the library must not make it of text.
    /// What has no id has the piece's of that text, or the next.
    void add(AddedToken token) {
        if (token.id < 0) token.id = state.find_entry(token.text).value_or(static_cast<TokenId>(state.entries.size()));
        const std::size_t size = file.pieces.size(), id = static_cast<std::size_t>(token.id);
        require(id < 2 * size + 1024, ErrorKind::damaged_file,
                "{}: the added token {} has the id {}; expected one near the vocabulary of {}", name, token.text,
                token.id, size);
        if (id >= state.entries.size()) state.entries.resize(id + 1), state.bytes.resize(id + 1);
        const auto before = state.ids.find(state.entries[id]);
        if (before != state.ids.end() && before->second == token.id) state.ids.erase(before);
        state.added.remove(token.id);
        state.entries[id] = token.text;
        state.ids[token.text] = token.id;
        if (id < size && file.pieces[id].kind != PieceKind::unknown) file.pieces[id].kind = PieceKind::control;
        token.normalized = false;  // each text between them is a text of its own for the library
        state.added.put(std::move(token));
    }

private:
    [[nodiscard]] std::optional<TokenId> special_id(const std::string& text) const {
        const AddedToken* token = state.added.find(text);
        return token != nullptr && token->special ? std::optional(token->id) : std::nullopt;
    }
};

/// Whether a step of this type is in a tokenizer.json's part.
const Json* find_step(const Json& step, const std::string& type) {
    if (text(step, "type") == type) return &step;
    for (const char* list : {"normalizers", "pretokenizers"}) {
        const Json& steps = field(step, list);
        if (!steps.is_array()) continue;
        for (const Json& inner : steps)
            if (const Json* found = find_step(inner, type)) return found;
    }
    return nullptr;
}

/// Sets whether texts get a space before them, and returns whether only their first part does.
bool read_prefix(const Json& converted, const Json& config, bool& prefix) {
    if (!converted.is_object()) {
        prefix = prefix && flag(config, "add_prefix_space", true);
        return !flag(config, "legacy", true);
    }
    if (find_step(field(converted, "normalizer"), "Prepend") != nullptr) return false;
    const Json* meta = find_step(field(converted, "pre_tokenizer"), "Metaspace");
    const std::string scheme = meta == nullptr ? "never" : text(*meta, "prepend_scheme");
    prefix = scheme == "first" || scheme == "always" || (scheme.empty() && flag(*meta, "add_prefix_space", true));
    return scheme == "first";
}

bool holds_pieces(const Json& converted) {
    const Json& model = field(converted, "model");
    return flag(model, "byte_fallback", false) || text(model, "type") == "Unigram";
}

std::shared_ptr<const Tokenizer> from_model(const std::filesystem::path& path, const Json& converted) {
    auto state = std::make_unique<TokenizerState>();
    const SharedBytes mapped = SharedBytes::map(path);
    const auto bytes = mapped.span();
    const std::string name = path.string();
    Draft draft{name,
                detail::SentencePieceFile::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name),
                *state};
    draft.file.check(name);
    const auto folder = path.parent_path();
    const detail::FolderTokens tokens = detail::FolderTokens::read(folder);
    draft.take_pieces();
    for (const AddedToken& token : tokens.listed) draft.add(token);
    for (const AddedToken& token : tokens.older)
        if (state->added.find(token.text) == nullptr) draft.add(token);
    for (const AddedToken& token : tokens.named)
        if (state->added.find(token.text) == nullptr) draft.add(token);
    const bool only_first = read_prefix(converted, tokens.config, draft.file.dummy_prefix);
    state->pieces.emplace(draft.file, only_first, name);
    state->leading_space = state->pieces->has_prefix();
    state->read_neighbours(folder, tokens);
    state->set_bos(state->bos, flag(tokens.config, "add_bos_token", true));
    state->finish(name);
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_sentencepiece(const std::filesystem::path& path) {
    const Json converted = detail::read_beside(path.parent_path(), "tokenizer.json");
    return from_model(path, holds_pieces(converted) ? converted : Json());
}

std::shared_ptr<const Tokenizer> Tokenizer::from_folder(const std::filesystem::path& folder) {
    const auto json = folder / "tokenizer.json", model = folder / "tokenizer.model";
    const bool has_json = std::filesystem::exists(json), has_model = std::filesystem::exists(model);
    require(has_json || has_model, ErrorKind::damaged_file,
            "{}: expected tokenizer.json or tokenizer.model in the folder", folder.string());
    if (!has_model) return from_json(json);
    if (!has_json) return from_model(model, Json());
    const Json converted = detail::read_json(json);
    if (text(field(converted, "model"), "type") == "Unigram") return from_model(model, converted);
    try {
        return from_json(json);
    } catch (const Error&) {
        if (!holds_pieces(converted)) throw;
        return from_model(model,
                          converted);  // the same vocabulary, with rules that tokenizer.json spells in another way
    }
}

}  // namespace outrider
