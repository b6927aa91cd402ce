// Characters as Python's str sees them: code points of UTF-8, white space, case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/unicode_text.hpp"

namespace outrider::jinja {

/// The code point at `at`, which moves behind it. Bytes that are not UTF-8 count as U+FFFD, one each.
[[nodiscard]] char32_t next_code_point(std::string_view text, std::size_t& at);

void append_code_point(std::string& text, char32_t c);

/// How many code points there are.
[[nodiscard]] std::size_t code_points(std::string_view text);

/// The byte at which code point `index` begins; text.size() when there are not so many.
[[nodiscard]] std::size_t byte_of(std::string_view text, std::size_t index);

using outrider::detail::is_ascii;

/// str.isspace of one character: what strip(), split() and the template's own white space control take.
[[nodiscard]] bool is_space(char32_t c);

[[nodiscard]] bool is_letter(char32_t c);
[[nodiscard]] bool is_digit(char32_t c);      ///< decimal digits (Nd)
[[nodiscard]] bool is_printable(char32_t c);  ///< repr shows it as it is
[[nodiscard]] bool is_upper(char32_t c);
[[nodiscard]] bool is_lower(char32_t c);

/// str.upper, str.lower, str.casefold and the title case of one character, with those that become several ("ß" is
/// "SS").
void append_upper(std::string& text, char32_t c);
void append_lower(std::string& text, char32_t c);
void append_folded(std::string& text, char32_t c);
void append_title(std::string& text, char32_t c);

/// Byte ranges without white space (or without any character of `characters`) at the left, right.
[[nodiscard]] std::size_t left_of_text(std::string_view text, const std::string_view* characters = nullptr);
[[nodiscard]] std::size_t right_of_text(std::string_view text, const std::string_view* characters = nullptr);

}  // namespace outrider::jinja
