#include <algorithm>
#include <set>

#include <outrider/core/error.hpp>
#include <outrider/formats/mapped_file.hpp>
#include <outrider/text/tokenizer.hpp>

#include <outrider/formats/detail/json_text.hpp>
#include "tokenizer_state.hpp"

// tokenizer.model, and what Hugging Face's libraries put beside it.
namespace outrider {
namespace {

using detail::field;
using detail::flag;
using detail::Json;
using detail::PieceKind;
using detail::text;

Json read_beside(const std::filesystem::path& folder, const char* name) {
    return std::filesystem::exists(folder / name) ? detail::read_json(folder / name) : Json();
}

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
            state.added.push_back({.id = static_cast<TokenId>(i), .text = piece.text, .special = special,
                                   .own_search = special});
        }
        const auto bos = state.find_added(file.bos), eos = state.find_added(file.eos);
        if (bos && state.added_special(*bos)) state.bos = bos;
        if (eos && state.added_special(*eos)) state.eos = eos;
    }

    /// A token that was added after training, or a piece that has become one. The library must not make it of text.
    void add(AddedToken token) {
        require(!token.text.empty(), "{}: an added token has no text", name);
        const std::size_t size = file.pieces.size(), id = static_cast<std::size_t>(token.id);
        require(token.id >= 0 && id < 2 * size + 1024, "{}: the added token {} has the id {}; expected one near the "
                "vocabulary of {}", name, token.text, token.id, size);
        if (id >= state.entries.size()) state.entries.resize(id + 1), state.bytes.resize(id + 1);
        state.entries[id] = token.text;
        if (id < size && file.pieces[id].kind != PieceKind::unknown) file.pieces[id].kind = PieceKind::control;
        const auto known = std::ranges::find(state.added, token.id, &AddedToken::id);
        if (known != state.added.end()) *known = std::move(token);
        else state.added.push_back(std::move(token));
    }
};

/// "12" to 12; -1 when it is no such number.
TokenId parse_id(const std::string& digits) {
    if (digits.empty() || digits.size() > 8 || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
    return static_cast<TokenId>(std::stol(digits));
}

/// The tokens that a map names as bos_token, pad_token, ..., additional_special_tokens.
void collect_special(const Json& map, std::set<std::string>& names) {
    const auto one = [&](const Json& value) {
        names.insert(value.is_string() ? value.get<std::string>() : text(value, "content"));
    };
    for (const char* key : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"})
        one(field(map, key));
    const Json& more = field(map, "additional_special_tokens");
    if (!more.is_array()) return;
    for (const Json& value : more) one(value);
}

void read_added(const std::filesystem::path& folder, const Json& config, Draft& draft) {
    const Json& decoder = field(config, "added_tokens_decoder");
    if (decoder.is_object()) {
        for (const auto& [id, token] : decoder.items()) {
            require(!flag(token, "single_word", false), "{}: the added token {} is of a kind (single_word) that is not "
                    "supported", draft.name, id);
            draft.add({.id = parse_id(id), .text = text(token, "content"), .special = flag(token, "special", false),
                       .strip_left = flag(token, "lstrip", false), .strip_right = flag(token, "rstrip", false)});
        }
    }
    const Json added = read_beside(folder, "added_tokens.json");
    if (!added.is_object()) return;
    std::set<std::string> special;
    collect_special(config, special);
    collect_special(read_beside(folder, "special_tokens_map.json"), special);
    for (const auto& [token, id] : added.items()) {
        if (draft.state.find_added(token)) continue;
        draft.add({.id = id.is_number_unsigned() && id < (1 << 24) ? id.get<TokenId>() : -1, .text = token,
                   .special = special.contains(token)});
    }
}

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
    Draft draft{name, detail::SentencePieceFile::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, name),
                *state};
    draft.file.check(name);
    const auto folder = path.parent_path();
    const Json config = read_beside(folder, "tokenizer_config.json");
    draft.take_pieces();
    read_added(folder, config, draft);
    const bool only_first = read_prefix(converted, config, draft.file.dummy_prefix);
    state->pieces.emplace(draft.file, only_first, name);
    state->adds_bos = true;
    state->read_neighbours(folder);
    state->finish(name);
    return std::make_shared<const Tokenizer>(std::move(state));
}

}  // namespace

std::shared_ptr<const Tokenizer> Tokenizer::from_sentencepiece(const std::filesystem::path& path) {
    const Json converted = read_beside(path.parent_path(), "tokenizer.json");
    return from_model(path, holds_pieces(converted) ? converted : Json());
}

std::shared_ptr<const Tokenizer> Tokenizer::from_folder(const std::filesystem::path& folder) {
    const auto json = folder / "tokenizer.json", model = folder / "tokenizer.model";
    const bool has_json = std::filesystem::exists(json), has_model = std::filesystem::exists(model);
    require(has_json || has_model, "{}: expected tokenizer.json or tokenizer.model in the folder", folder.string());
    if (!has_model) return from_json(json);
    if (!has_json) return from_model(model, Json());
    const Json converted = detail::read_json(json);
    return holds_pieces(converted) ? from_model(model, converted) : from_json(json);
}

}  // namespace outrider
