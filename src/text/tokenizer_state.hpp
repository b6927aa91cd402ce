// What a Tokenizer is made of; filled by its readers (GGUF, tokenizer.json, tokenizer.model).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>

#include "added_tokens.hpp"
#include "merge_bpe.hpp"
#include "normalizer.hpp"
#include "pre_tokenizer.hpp"
#include "sentencepiece_encoder.hpp"

namespace outrider {

namespace detail {
struct FolderTokens;
}

using detail::AddedToken;

/// How vocabularies that came from SentencePiece write spaces (the pre-tokenizer Metaspace): as U+2581, with one before
/// a text. Or ByteLevel's add_prefix_space, with the space itself.
struct SpaceMarks {
    std::string mark{detail::kSpaceMark};
    bool prefix = false;
    bool only_first = false;  ///< before the text's first part alone, not after special tokens

    /// `part` with marks. `first`: a text begins here.
    [[nodiscard]] std::string operator()(std::string_view part, bool first) const;
};

struct TokenizerState {
    std::vector<std::string> entries;  ///< as in the file, by id; empty: no token. finish() lets them and `ids` go
    std::unordered_map<std::string, TokenId> ids;  ///< of the entries; the first of several with one text
    std::vector<std::string> bytes;                ///< what each adds to a text, by id; derived when empty
    detail::AddedTokens added;
    detail::Normalizer normalizer;
    std::optional<SpaceMarks> marks;  ///< applied to each part of a text before `words`
    detail::PreTokenizer words;
    std::optional<detail::MergeBpe> model;
    std::optional<detail::SentencePieceEncoder> pieces;  ///< instead of marks, words and model
    bool leading_space = false;                          ///< texts are encoded with a space before them
    std::optional<TokenId> bos, eos;
    std::vector<TokenId> leading_ids;  ///< what a raw prompt begins with
    std::vector<TokenId> end_ids;
    bool ends_by_name = false;  ///< every well-known name of an end counts
    std::string chat_template;
    std::vector<std::pair<std::string, std::string>> chat_templates;  ///< further ones, by name
    std::vector<std::pair<std::string, std::string>> named_tokens;    ///< "bos_token" and the like to their texts

    std::vector<bool> special;  ///< by id; as many as ids. Made by finish()

    /// Adds a token that has a text and an id. The id may be an entry's: words still become it, and what it adds to a
    /// text is the token's.
    void add(AddedToken token);

    /// Adds an entry, or names one that had no text. Throws Error for an id that belongs to another text.
    void put_entry(std::size_t id, const std::string& entry, const std::string& name);

    /// The id of an entry or added token by its text.
    [[nodiscard]] std::optional<TokenId> find_entry(const std::string& text) const;

    /// Makes `token` the one that a raw prompt begins with, or nothing when `adds` is false.
    void set_bos(std::optional<TokenId> token, bool adds);

    /// Where `bytes` and `special` hold a token; nothing for ids beyond the vocabulary. Throws Error for negative ones.
    [[nodiscard]] std::optional<std::size_t> index_of(TokenId token) const;

    /// Checks the ids, derives `bytes` and `special`, and makes the searches. `name` stands in messages. Throws Error.
    void finish(const std::string& name);

    /// bos, eos, chat template and end ids of the files that stand beside a vocabulary, where they exist. After its
    /// tokens are there. Throws Error.
    void read_neighbours(const std::filesystem::path& folder, const detail::FolderTokens& tokens);

    /// Names a token for chat templates; the first text of a name counts.
    void name_token(const std::string& name, const std::string& text);
};

/// Splits "left right". Throws Error when there is no single space.
[[nodiscard]] std::pair<std::string, std::string> split_merge(const std::string& line);

}  // namespace outrider
