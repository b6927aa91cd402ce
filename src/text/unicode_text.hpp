// What tokenizers ask about characters: normal forms, lower case, marks, white space, words. By the library utf8proc.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace outrider::detail {

/// Unicode's normalization forms (UAX #15).
enum class NormalForm { nfc, nfd, nfkc, nfkd };

[[nodiscard]] bool is_ascii(std::string_view text);

// All texts are valid UTF-8.

[[nodiscard]] std::string normalized(std::string_view text, NormalForm form);

/// Character by character, as Python's `tokenizers` does: no rule looks at neighbours.
[[nodiscard]] std::string lower_case(std::string_view text);

/// Without the characters of the general category Mark.
[[nodiscard]] std::string without_marks(std::string_view text);

/// Bytes of the characters with the property White_Space at the end and at the front of `text`.
[[nodiscard]] std::size_t white_space_at_end(std::string_view text);
[[nodiscard]] std::size_t white_space_at_front(std::string_view text);

/// Whether the last and the first character belong to a word: \w of UTS #18, which is letters, marks, decimal digits,
/// connecting punctuation and joiners.
[[nodiscard]] bool ends_with_word(std::string_view text);
[[nodiscard]] bool begins_with_word(std::string_view text);

/// The code point at the front of a text that is not empty, and its bytes.
struct Character {
    char32_t point = 0;
    std::size_t bytes = 0;
};
[[nodiscard]] Character first_character(std::string_view text);

/// Appends one code point.
void put_character(std::string& to, char32_t point);

}  // namespace outrider::detail
