// What a Tokenizer is made of; filled by its readers (GGUF, tokenizer.json, tokenizer.model).
#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <outrider/core/types.hpp>

#include "merge_bpe.hpp"
#include "pre_tokenizer.hpp"
#include "sentencepiece_encoder.hpp"

namespace outrider {

/// A token that is found in text as a whole, before words are made.
struct AddedToken {
    TokenId id = kNoToken;
    std::string text;
    bool special = true;      ///< found only with SpecialText::parse, adds no bytes to a text
    bool strip_left = false;  ///< takes the white space before it (lstrip) or after it (rstrip)
    bool strip_right = false;
    bool own_search = true;   ///< false: the model finds it in text by itself
};

/// How vocabularies that came from SentencePiece write spaces: as U+2581, with one before a text.
struct SpaceMarks {
    bool prefix = false;
    bool only_first = false;  ///< before the text's first part alone, not behind special tokens
    bool one_only = false;    ///< none where the text begins with a space of its own
};

struct TokenizerState {
    std::vector<std::string> entries;  ///< as in the file, by id; empty: no token. finish() lets them go
    std::vector<std::string> bytes;    ///< what each adds to a text, by id; derived when empty
    std::vector<AddedToken> added;
    detail::PreTokenizer words;                          ///< of byte-level BPE
    std::optional<detail::MergeBpe> model;
    std::optional<SpaceMarks> marks;                     ///< instead of `words`: parts of a text are one word each
    std::optional<detail::SentencePieceEncoder> pieces;  ///< instead of the three
    std::optional<TokenId> bos, eos;
    bool adds_bos = false;
    std::vector<TokenId> end_ids;
    std::string chat_template;

    // Made by finish().
    std::unordered_map<std::string, std::size_t> added_by_text;  ///< index in `added`
    std::vector<bool> special;                                   ///< by id; as many as ids
    std::array<std::vector<std::size_t>, 256> added_by_byte;     ///< indices by first byte, longest text first

    /// Checks `added`, bos and end ids, and derives the rest. `name` stands in messages. Throws Error.
    void finish(const std::string& name);

    /// The id of an added token.
    [[nodiscard]] std::optional<TokenId> find_added(const std::string& name) const;

    /// Whether an added token is special.
    [[nodiscard]] bool added_special(TokenId id) const;

    /// bos, eos, chat template and end ids of tokenizer_config.json, generation_config.json or config.json, and
    /// chat_template.jinja, where they exist. After `entries` and `added` are there. Throws Error.
    void read_neighbours(const std::filesystem::path& folder);

    /// Whether texts are encoded with a space before them.
    [[nodiscard]] bool has_prefix() const { return pieces ? pieces->has_prefix() : marks && marks->prefix; }

    /// Index of the added token at the front of `text`, the longest; nothing if none.
    [[nodiscard]] std::optional<std::size_t> added_at(std::string_view text, bool with_special) const;
};

/// Splits "left right". Throws Error when there is no single space.
[[nodiscard]] std::pair<std::string, std::string> split_merge(const std::string& line);

}  // namespace outrider
