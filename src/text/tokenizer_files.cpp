#include <cstdint>
#include <limits>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/mapped_file.hpp>

#include <outrider/formats/detail/json_text.hpp>

#include "folder_tokens.hpp"
#include "tokenizer_state.hpp"

// The small files that stand beside a tokenizer.json or tokenizer.model in Hugging Face folders.
namespace outrider {
namespace {

using detail::field;
using detail::Json;
using detail::shown;
using detail::text;

void read_template(const Json& config, TokenizerState& state) {
    const Json& source = field(config, "chat_template");
    if (source.is_string()) state.chat_template = source.get<std::string>();
    const auto put = [&](const std::string& name, const std::string& written) {
        if (name == "default")
            state.chat_template = written;
        else
            state.chat_templates.emplace_back(name, written);
    };
    // Several templates by name, in a list or an object.
    if (source.is_array())
        for (const Json& named : source) put(text(named, "name"), text(named, "template"));
    if (source.is_object())
        for (const auto& [name, written] : source.items())
            if (written.is_string()) put(name, written.get<std::string>());
}

/// bos_token, pad_token and every other key of that form whose value is a text or an object with one.
void read_named_tokens(const std::filesystem::path& path, TokenizerState& state) {
    if (!std::filesystem::exists(path)) return;
    const Json config = detail::read_json(path);
    if (!config.is_object()) return;
    for (const auto& [key, value] : config.items()) {
        if (!key.ends_with("_token")) continue;
        if (value.is_string())
            state.name_token(key, value.get<std::string>());
        else if (value.is_object() && field(value, "content").is_string())
            state.name_token(key, text(value, "content"));
    }
}

/// The end ids of one file; false where it names none.
bool read_end_ids(const std::filesystem::path& path, TokenizerState& state) {
    if (!std::filesystem::exists(path)) return false;
    const Json config = detail::read_json(path);
    const Json& ids = field(config, "eos_token_id");
    bool found = false;
    for (const Json& id : ids.is_array() ? ids : Json::array({ids})) {
        found = found || !id.is_null();
        if (id.is_null() || id == -1) continue;  // -1 is some files' "none"
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() > std::numeric_limits<TokenId>::max())
            fail(ErrorKind::damaged_file, "{}: eos_token_id is {}; expected a token id or a list of them",
                 path.string(), shown(ids));
        state.end_ids.push_back(id.get<TokenId>());
    }
    return found;
}

std::string read_text(const std::filesystem::path& path) {
    const SharedBytes file = SharedBytes::map(path);
    return {reinterpret_cast<const char*>(file.span().data()), file.size()};
}

/// Templates in files of their own: chat_template.jinja, and others in additional_chat_templates/.
void read_template_files(const std::filesystem::path& folder, TokenizerState& state) {
    if (std::filesystem::exists(folder / "chat_template.jinja")) {
        state.chat_template = read_text(folder / "chat_template.jinja");
        state.chat_templates.clear();
    }
    if (!std::filesystem::is_directory(folder / "additional_chat_templates")) return;
    std::vector<std::filesystem::path> files;
    for (const auto& file : std::filesystem::directory_iterator(folder / "additional_chat_templates"))
        if (file.path().extension() == ".jinja") files.push_back(file.path());
    std::ranges::sort(files);
    for (const auto& file : files) state.chat_templates.emplace_back(file.stem().string(), read_text(file));
}

}  // namespace

void TokenizerState::read_neighbours(const std::filesystem::path& folder, const detail::FolderTokens& tokens) {
    read_template(tokens.config, *this);
    if (const auto named = find_entry(tokens.bos)) bos = named;
    for (const std::string& name : tokens.eos) {
        const auto named = find_entry(name);
        if (!named) continue;
        if (!eos || name == tokens.eos.front()) eos = named;
        end_ids.push_back(*named);
    }
    // The model's own configuration counts where generation_config.json is silent: that one is often edited alone.
    if (!read_end_ids(folder / "generation_config.json", *this)) read_end_ids(folder / "config.json", *this);
    read_template_files(folder, *this);
    read_named_tokens(folder / "tokenizer_config.json", *this);
    read_named_tokens(folder / "special_tokens_map.json", *this);
}

}  // namespace outrider
