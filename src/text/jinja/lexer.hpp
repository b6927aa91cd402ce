// A template's source as tokens, with jinja2's rules for white space (trim_blocks and lstrip_blocks, as transformers
// sets them).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace outrider::jinja {

enum class TokenKind { data, block_begin, block_end, print_begin, print_end, name, string, integer, real, sign, end };

struct Token {
    TokenKind kind;
    std::string text;  ///< of strings: unescaped; of numbers: digits without "_"
    int line;

    [[nodiscard]] bool is_sign(std::string_view s) const { return kind == TokenKind::sign && text == s; }
    [[nodiscard]] bool is_name(std::string_view s) const { return kind == TokenKind::name && text == s; }
};

/// The last token is of the kind end. Throws Error naming the line.
[[nodiscard]] std::vector<Token> tokenize(std::string_view source);

}  // namespace outrider::jinja
