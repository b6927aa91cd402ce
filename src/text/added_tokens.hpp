// Tokens that are found in text as a whole, before words are made.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/text/tokenizer.hpp>

#include "normalizer.hpp"

namespace outrider::detail {

struct AddedToken {
    TokenId id = kNoToken;
    std::string text;
    bool special = true;      ///< found only where special tokens are asked for, adds no bytes to a text
    bool strip_left = false;  ///< takes the white space before it (lstrip) or after it (rstrip)
    bool strip_right = false;
    bool single_word = false;  ///< not found inside a word
    bool normalized = false;   ///< its normalized text is looked for in the normalized text
    bool own_search = true;    ///< false: the model finds it in text by itself
};

/// Finds the longest of many texts at a place.
class TextTrie {
public:
    /// False where `text`, which is not empty, is there already.
    bool add(std::string_view text, std::size_t value);

    struct Found {
        std::size_t value = 0, bytes = 0;
    };
    /// The longest text that `text` begins with.
    [[nodiscard]] std::optional<Found> longest(std::string_view text) const;

private:
    std::unordered_map<std::uint64_t, std::uint32_t> steps_;  // node and byte to node; the root is 0
    std::vector<std::int64_t> values_{-1};                    // by node; -1: no text ends here
    std::array<bool, 256> first_{};                           // bytes that some text begins with
};

/// The added tokens of a vocabulary, and how they cut a text: as the library `tokenizers` does
/// (tokenizers/src/tokenizer/added_vocabulary.rs). Those that are not normalized are looked for in the whole text
/// first; then each part between them is normalized, and those that are normalized are looked for in it. Of two that
/// overlap the leftmost wins, then the longest.
class AddedTokens {
public:
    /// Adds a token, or puts it in the place of one with the same text.
    void put(AddedToken token);

    /// Takes out the token of this id, if there is one.
    void remove(TokenId id);

    [[nodiscard]] const std::vector<AddedToken>& all() const noexcept { return tokens_; }
    [[nodiscard]] const AddedToken* find(const std::string& text) const;
    [[nodiscard]] const AddedToken* find(TokenId id) const;

    /// Makes the searches. Throws Error for two tokens of one normalized text, or of none. `name` stands in messages.
    void finish(const std::string& name, const Normalizer& normalizer);

    /// A part of a text: an added token, or normalized text. `first`: the text begins here. The view is good during the
    /// call only where `normalizer` has steps.
    using Take = std::function<void(std::string_view part, const AddedToken* token, bool first)>;

    /// Cuts `text` and hands out the parts in order.
    void cut(std::string_view text, bool with_special, const Normalizer& normalizer, const Take& take) const;

    /// The same with special tokens where none of their bytes is in a span of `plain` (ascending). They are looked for
    /// as they are written, normalized ones too.
    void cut(std::string_view text, std::span<const TextSpan> plain, const Normalizer& normalizer,
             const Take& take) const;

private:
    /// What begins at a place of the text, if anything.
    using Find = std::function<std::optional<TextTrie::Found>(std::size_t at)>;
    void search(std::string_view text, const Find& find, bool with_special, const Take& take) const;
    void search_normalized(std::string_view part, bool with_special, const Normalizer& normalizer, bool first,
                           const Take& take) const;

    std::vector<AddedToken> tokens_;
    std::unordered_map<std::string, std::size_t> by_text_;
    std::unordered_map<TokenId, std::size_t> by_id_;
    TextTrie raw_, normalized_;
    TextTrie written_;  // special tokens that are normalized, as they are written
};

}  // namespace outrider::detail
