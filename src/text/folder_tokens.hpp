// What the small files beside a vocabulary say of tokens: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json. Rules of Hugging Face's `transformers` (5.x: PreTrainedTokenizerBase._from_pretrained).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <outrider/formats/detail/json_text.hpp>
#include "added_tokens.hpp"

namespace outrider::detail {

struct FolderTokens {
    Json config;                     ///< tokenizer_config.json; null where there is none
    std::vector<AddedToken> listed;  ///< added_tokens_decoder, ascending; they go before what a vocabulary says of them
    std::vector<AddedToken> older;   ///< added_tokens.json, ascending, which counts where there is no such list
    std::vector<AddedToken> named;   ///< special tokens named by a key, without ids: they are added where not known
    std::string bos;                 ///< their texts; empty: not named
    std::vector<std::string> eos;    ///< the first is the one that counts, others are ends too

    /// Throws Error.
    [[nodiscard]] static FolderTokens read(const std::filesystem::path& folder);
};

/// The JSON file `folder`/`name`; null where there is none. Throws Error.
[[nodiscard]] Json read_beside(const std::filesystem::path& folder, const char* name);

/// A token of a list with content, special, lstrip, rstrip, single_word and normalized. `name` stands in messages.
/// Throws Error.
[[nodiscard]] AddedToken read_added_token(const Json& token, TokenId id, const std::string& name);

}  // namespace outrider::detail
