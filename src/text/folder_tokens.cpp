#include "folder_tokens.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include <outrider/core/error.hpp>

namespace outrider::detail {
namespace {

constexpr std::array kNames = {"bos_token", "eos_token", "unk_token", "sep_token",
                               "pad_token", "cls_token", "mask_token"};

/// The text of a token that is a string or an object with content; empty for null and others.
std::string text_of(const Json& value) { return value.is_string() ? value.get<std::string>() : text(value, "content"); }

/// "12" to 12.
TokenId parse_id(const std::string& digits, const std::string& name) {
    require(!digits.empty() && digits.size() <= 8 && digits.find_first_not_of("0123456789") == std::string::npos,
            ErrorKind::damaged_file, "{}: added_tokens_decoder has the key \"{}\"; expected a token id", name, digits);
    return static_cast<TokenId>(std::stol(digits));
}

/// Special tokens by their keys, in the order in which the reference adds them.
class SpecialNames {
public:
    /// Takes the names of tokenizer_config.json, or of special_tokens_map.json, which go before the others'.
    void take(const Json& map, const std::string& name) {
        if (!map.is_object()) return;
        for (const char* key : kNames) put(key, field(map, key), name);
        for (const auto& [key, value] : map.items())
            if (key.ends_with("_token") && std::ranges::find(kNames, key) == kNames.end() && value.is_string())
                put(key, value, name);
        for (const char* list : {"additional_special_tokens", "extra_special_tokens"}) {
            const Json& more = field(map, list);
            if (more.is_structured())
                for (const Json& value : more) put("", value, name);
        }
    }

    [[nodiscard]] std::string text_at(const std::string& key) const {
        const auto found = by_key_.find(key);
        return found != by_key_.end() ? found->second.text : std::string();
    }

    [[nodiscard]] std::vector<AddedToken> all() const {
        std::vector<AddedToken> result;
        for (const char* key : kNames)
            if (const auto found = by_key_.find(key); found != by_key_.end()) result.push_back(found->second);
        for (const auto& [key, token] : by_key_)
            if (std::ranges::find(kNames, key) == kNames.end()) result.push_back(token);
        result.insert(result.end(), more_.begin(), more_.end());
        return result;
    }

private:
    void put(const std::string& key, const Json& value, const std::string& name) {
        if (text_of(value).empty()) return;
        AddedToken token{.text = text_of(value)};
        if (value.is_object()) token = read_added_token(value, kNoToken, name);
        token.special = true;
        if (key.empty())
            more_.push_back(std::move(token));
        else
            by_key_[key] = std::move(token);
    }

    std::map<std::string, AddedToken> by_key_;
    std::vector<AddedToken> more_;
};

std::vector<AddedToken> read_decoder(const Json& decoder, const std::string& name,
                                     const std::vector<AddedToken>& named) {
    std::vector<AddedToken> result;
    for (const auto& [key, value] : decoder.items()) {
        AddedToken token = read_added_token(value, parse_id(key, name), name);
        token.special = token.special || std::ranges::find(named, token.text, &AddedToken::text) != named.end();
        result.push_back(std::move(token));
    }
    std::ranges::sort(result, {}, &AddedToken::id);
    return result;
}

std::vector<AddedToken> read_older(const Json& added, const std::string& name, const std::vector<AddedToken>& named) {
    std::vector<AddedToken> result;
    if (added.is_null()) return result;
    require(added.is_object(), ErrorKind::damaged_file, "{}: expected a JSON object, texts with their ids", name);
    for (const auto& [text, id] : added.items()) {
        if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= (1u << 24))
            fail(ErrorKind::damaged_file, "{}: \"{}\" has the id {}; expected a token id", name, text, shown(id));
        const bool special = std::ranges::find(named, text, &AddedToken::text) != named.end();
        result.push_back({.id = id.get<TokenId>(), .text = text, .special = special, .normalized = !special});
    }
    std::ranges::sort(result, {}, &AddedToken::id);
    return result;
}

}  // namespace

Json read_beside(const std::filesystem::path& folder, const char* name) {
    return std::filesystem::exists(folder / name) ? read_json(folder / name) : Json();
}

AddedToken read_added_token(const Json& token, TokenId id, const std::string& name) {
    if (!token.is_object() || text(token, "content").empty())
        fail(ErrorKind::damaged_file, "{}: the added token {} is {}; it has no content", name, id, shown(token));
    const bool special = flag(token, "special", false);
    return {.id = id,
            .text = text(token, "content"),
            .special = special,
            .strip_left = flag(token, "lstrip", false),
            .strip_right = flag(token, "rstrip", false),
            .single_word = flag(token, "single_word", false),
            .normalized = flag(token, "normalized", !special)};
}

FolderTokens FolderTokens::read(const std::filesystem::path& folder) {
    FolderTokens result;
    result.config = read_beside(folder, "tokenizer_config.json");
    const std::string name = (folder / "tokenizer_config.json").string();
    require(result.config.is_null() || result.config.is_object(), ErrorKind::damaged_file, "{}: expected a JSON object",
            name);
    const Json map = read_beside(folder, "special_tokens_map.json");
    const Json& decoder = field(result.config, "added_tokens_decoder");
    SpecialNames names, others;
    names.take(result.config, name);
    others.take(map, (folder / "special_tokens_map.json").string());
    if (!decoder.is_object()) names.take(map, (folder / "special_tokens_map.json").string());
    result.named = names.all();
    result.bos = names.text_at("bos_token");
    for (const std::string& eos :
         {names.text_at("eos_token"), text_of(field(result.config, "eos_token")), others.text_at("eos_token")})
        if (!eos.empty() && std::ranges::find(result.eos, eos) == result.eos.end()) result.eos.push_back(eos);
    if (decoder.is_object())
        result.listed = read_decoder(decoder, name, result.named);
    else
        result.older =
            read_older(read_beside(folder, "added_tokens.json"), (folder / "added_tokens.json").string(), result.named);
    return result;
}

}  // namespace outrider::detail
