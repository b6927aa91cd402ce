#include <algorithm>
#include <fstream>
#include <iterator>

#include <outrider/core/error.hpp>

#include <outrider/formats/detail/json_text.hpp>
#include "tokenizer_state.hpp"

// The small files that stand beside a tokenizer.json or tokenizer.model in Hugging Face folders.
namespace outrider {
namespace {

using detail::field;
using detail::flag;
using detail::Json;
using detail::shown;
using detail::text;

/// A token of tokenizer_config.json: its text, or an object with it.
std::optional<TokenId> config_token(const TokenizerState& state, const Json& value) {
    return state.find_added(value.is_string() ? value.get<std::string>() : text(value, "content"));
}

void read_config(const std::filesystem::path& path, TokenizerState& state) {
    if (!std::filesystem::exists(path)) return;
    const Json config = detail::read_json(path);
    if (const auto bos = config_token(state, field(config, "bos_token"))) state.bos = bos;
    if (const auto eos = config_token(state, field(config, "eos_token"))) state.eos = eos;
    state.adds_bos = flag(config, "add_bos_token", state.adds_bos);
    const Json& source = field(config, "chat_template");
    if (source.is_string()) state.chat_template = source.get<std::string>();
    if (!source.is_array()) return;
    for (const Json& named : source) {  // several templates by name
        if (text(named, "name") == "default") state.chat_template = text(named, "template");
    }
}

/// End ids of generation_config.json or, without one, of the model's config.json.
void read_end_ids(const std::filesystem::path& folder, TokenizerState& state) {
    std::filesystem::path path = folder / "generation_config.json";
    if (!std::filesystem::exists(path)) path = folder / "config.json";
    if (!std::filesystem::exists(path)) return;
    const Json config = detail::read_json(path);
    const Json& ids = field(config, "eos_token_id");
    for (const Json& id : ids.is_array() ? ids : Json::array({ids})) {
        if (!id.is_number_integer() || id == -1) continue;  // -1 is some files' "none"
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= state.entries.size()) {
            fail("{}: the end id {} is outside the vocabulary of {}", path.string(), shown(id), state.entries.size());
        }
        state.end_ids.push_back(id.get<TokenId>());
    }
}

std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

std::optional<TokenId> TokenizerState::find_added(const std::string& name) const {
    const auto found = std::ranges::find(added, name, &AddedToken::text);
    return found != added.end() ? std::optional(found->id) : std::nullopt;
}

bool TokenizerState::added_special(TokenId id) const {
    const auto found = std::ranges::find(added, id, &AddedToken::id);
    return found != added.end() && found->special;
}

void TokenizerState::read_neighbours(const std::filesystem::path& folder) {
    read_config(folder / "tokenizer_config.json", *this);
    read_end_ids(folder, *this);
    if (std::filesystem::exists(folder / "chat_template.jinja")) {
        chat_template = read_text(folder / "chat_template.jinja");
    }
}

}  // namespace outrider
