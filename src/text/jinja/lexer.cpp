#include "lexer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <outrider/core/error.hpp>

#include "unicode.hpp"

// After jinja2/lexer.py 3.1: line breaks become "\n", one at the end of the source is dropped.
namespace outrider::jinja {
namespace {

std::string with_plain_line_breaks(std::string_view source) {
    std::string result;
    result.reserve(source.size());
    for (std::size_t i = 0; i < source.size(); ++i) {
        if (source[i] != '\r') {
            result += source[i];
            continue;
        }
        result += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
    if (result.ends_with('\n')) result.pop_back();
    return result;
}

bool is_digit_of(char c, int base) {
    const int value = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    return value < base;
}

bool begins_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

class Lexer {
public:
    explicit Lexer(std::string_view source) : source_(with_plain_line_breaks(source)) {}

    std::vector<Token> run() {
        while (at_ < source_.size()) text_and_tag();
        put(TokenKind::end, {});
        return std::move(tokens_);
    }

private:
    [[nodiscard]] bool here(std::string_view s) const { return std::string_view(source_).substr(at_).starts_with(s); }
    [[nodiscard]] char peek(std::size_t ahead = 0) const {
        return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
    }

    void put(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

    template <typename... Args>
    [[noreturn]] void complain(fmt::format_string<Args...> text, Args&&... args) const {
        fail("line {}: {}", line_, fmt::format(text, std::forward<Args>(args)...));
    }

    void move_to(std::size_t end) {
        line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                             source_.begin() + static_cast<std::ptrdiff_t>(end), '\n'));
        at_ = end;
    }

    /// Skips white space, Unicode's.
    void skip_space() { move_to(at_ + left_of_text(std::string_view(source_).substr(at_))); }

    void text_and_tag() {
        std::size_t tag = at_;
        while (
            tag + 1 < source_.size() &&
            !(source_[tag] == '{' && (source_[tag + 1] == '{' || source_[tag + 1] == '%' || source_[tag + 1] == '#')))
            ++tag;
        if (tag + 1 >= source_.size()) tag = source_.size();
        const std::size_t begin = at_;
        if (tag == source_.size()) {
            put(TokenKind::data, source_.substr(begin));
            return move_to(tag);
        }
        const char kind = source_[tag + 1];
        const char sign =
            tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? source_[tag + 2] : '\0';
        put_data(begin, tag, sign, kind != '{');
        move_to(tag + 2 + (sign != '\0' ? 1 : 0));
        if (kind == '#') return comment();
        if (kind == '{') return inside(TokenKind::print_begin, TokenKind::print_end, "}}");
        if (begins_raw()) return raw();
        inside(TokenKind::block_begin, TokenKind::block_end, "%}");
    }

    /// The text before a tag, without what the tag takes of its end.
    void put_data(std::size_t begin, std::size_t end, char sign, bool statement) {
        const std::string_view text = std::string_view(source_).substr(begin, end - begin);
        std::size_t kept = text.size();
        if (sign == '-') {
            kept = right_of_text(text);
        } else if (sign != '+' && statement) {
            const std::size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
            if ((line > 0 || line_starts_) && left_of_text(text.substr(line)) == text.size() - line) kept = line;
        }
        if (kept > 0) put(TokenKind::data, std::string(text.substr(0, kept)));
    }

    /// Behind a tag's end: a sign takes all white space or none, without one a statement takes one line break.
    void end_tag(char sign, bool statement) {
        const std::size_t begin = at_;
        if (sign == '-')
            skip_space();
        else if (sign != '+' && statement && peek() == '\n')
            move_to(at_ + 1);
        line_starts_ = at_ > begin && source_[at_ - 1] == '\n';
    }

    void comment() {
        const std::size_t end = source_.find("#}", at_);
        if (end == std::string::npos) complain("a comment without an end (#}})");
        const char before = end > at_ ? source_[end - 1] : '\0';
        move_to(end + 2);
        end_tag(before == '-' || before == '+' ? before : '\0', true);
    }

    /// Whether the tag here is {% raw %}; moves behind it if so.
    bool begins_raw() {
        const std::size_t begin = at_;
        const int line = line_;
        skip_space();
        if (here("raw")) {
            at_ += 3;
            skip_space();
            const char sign = peek() == '-' ? '-' : '\0';
            if (sign != '\0') ++at_;
            if (here("%}")) {
                at_ += 2;
                if (sign == '-') skip_space();
                line_starts_ = source_[at_ - 1] == '\n';
                return true;
            }
        }
        at_ = begin, line_ = line;
        return false;
    }

    void raw() {
        const std::size_t begin = at_;
        for (std::size_t tag = source_.find("{%", begin); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
            std::size_t at = tag + 2;
            const char sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
            if (sign != '\0') ++at;
            at += left_of_text(std::string_view(source_).substr(at));
            if (!std::string_view(source_).substr(at).starts_with("endraw")) continue;
            at += 6;
            at += left_of_text(std::string_view(source_).substr(at));
            const char end = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
            if (end != '\0') ++at;
            if (!std::string_view(source_).substr(at).starts_with("%}")) continue;
            put_data(begin, tag, sign, true);
            move_to(at + 2);
            return end_tag(end, true);
        }
        complain("a raw block without {{% endraw %}}");
    }

    /// The tokens of a statement or of an expression to print.
    void inside(TokenKind begin, TokenKind end, std::string_view end_text) {
        put(begin, {});
        std::string open;  // brackets that are to be closed
        for (;;) {
            if (at_ >= source_.size()) complain("the end of the template within a tag; expected {}", end_text);
            if (open.empty()) {
                const char sign = peek() == '-' || (peek() == '+' && end == TokenKind::block_end) ? peek() : '\0';
                if (std::string_view(source_).substr(at_ + (sign != '\0' ? 1 : 0)).starts_with(end_text)) {
                    put(end, {});
                    at_ += end_text.size() + (sign != '\0' ? 1 : 0);
                    return end_tag(sign, end == TokenKind::block_end);
                }
            }
            token(open);
        }
    }

    void token(std::string& open) {
        const std::size_t begin = at_;
        skip_space();
        if (at_ != begin) return;
        const char c = peek();
        if (c == '\'' || c == '"') return string(c);
        if (c >= '0' && c <= '9') return number();
        if (begins_name(c)) return name();
        sign(open);
    }

    void name() {
        const std::size_t begin = at_;
        while (begins_name(peek()) || (peek() >= '0' && peek() <= '9')) ++at_;
        put(TokenKind::name, source_.substr(begin, at_ - begin));
    }

    /// Digits of one base with "_" between them.
    void digits(std::string& text, int base) {
        while (is_digit_of(peek(), base) || (peek() == '_' && is_digit_of(peek(1), base) && !text.empty())) {
            if (peek() != '_') text += peek();
            ++at_;
        }
    }

    void number() {
        std::string text;
        const char mark = static_cast<char>(peek(1) | 0x20);
        if (const int base = mark == 'x'   ? 16
                             : mark == 'o' ? 8
                             : mark == 'b' ? 2
                                           : 0;
            base != 0 && peek() == '0' && (is_digit_of(peek(2), base) || peek(2) == '_')) {
            at_ += peek(2) == '_' ? 3 : 2;
            digits(text, base);
            return put(TokenKind::integer, fmt::format("0{}{}", mark, text));
        }
        digits(text, 10);
        bool real = false;
        const bool index = !tokens_.empty() && tokens_.back().is_sign(".");  // messages.0
        if (peek() == '.' && is_digit_of(peek(1), 10) && !index) {
            real = true;
            text += '.', ++at_;
            digits(text, 10);
        }
        const std::size_t ahead = peek(1) == '+' || peek(1) == '-' ? 2 : 1;
        if ((peek() | 0x20) == 'e' && is_digit_of(peek(ahead), 10) && !index) {
            real = true;
            text.append(source_, at_, ahead);
            at_ += ahead;
            digits(text, 10);
        }
        put(real ? TokenKind::real : TokenKind::integer, text);
    }

    void string(char quote) {
        std::size_t end = at_ + 1;
        while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
        if (end >= source_.size()) complain("a string without an end ({})", quote);
        put(TokenKind::string, unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
        move_to(end + 1);
    }

    /// Python's escapes; one that it does not know stays as it is.
    [[nodiscard]] std::string unescaped(std::string_view text) const {
        std::string result;
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] != '\\') {
                result += text[i];
                continue;
            }
            const char c = text[++i];
            constexpr std::string_view kNames = "nrtabfv\\'\"", kValues = "\n\r\t\a\b\f\v\\'\"";
            if (const auto found = kNames.find(c); found != std::string_view::npos)
                result += kValues[found];
            else if (c == '\n')
                continue;
            else if (c >= '0' && c <= '7')
                append_code_point(result, code(text, i, 3, 8) & 0x1FF), --i;
            else if (c == 'x')
                append_code_point(result, code(text, ++i, 2, 16, 2)), --i;
            else if (c == 'u')
                append_utf16(result, text, i);
            else if (c == 'U')
                append_code_point(result, code(text, ++i, 8, 16, 8)), --i;
            else if (c == 'N')
                complain("the escape \\N in a string is not supported");
            else
                result += '\\', result += c;
        }
        return result;
    }

    /// \uXXXX, two of them for a character above U+FFFF.
    void append_utf16(std::string& result, std::string_view text, std::size_t& i) const {
        char32_t c = code(text, ++i, 4, 16, 4);
        if (c >= 0xD800 && c < 0xDC00 && text.substr(i).starts_with("\\u")) {
            std::size_t next = i + 2;
            const char32_t low = code(text, next, 4, 16, 4);
            if (low >= 0xDC00 && low < 0xE000) c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00), i = next;
        }
        append_code_point(result, c >= 0xD800 && c < 0xE000 ? 0xFFFD : c);
        --i;
    }

    char32_t code(std::string_view text, std::size_t& i, std::size_t most, int base, std::size_t least = 1) const {
        std::uint64_t value = 0;
        std::size_t count = 0;
        for (; count < most && i < text.size() && is_digit_of(text[i], base); ++count, ++i) {
            const char c = static_cast<char>(text[i] | 0x20);
            value = value * static_cast<std::uint64_t>(base) +
                    static_cast<std::uint64_t>(text[i] <= '9' ? text[i] - '0' : c - 'a' + 10);
        }
        if (count < least || value > 0x10FFFF) complain("an escape in a string is not whole");
        return static_cast<char32_t>(value);
    }

    void sign(std::string& open) {
        constexpr std::array<std::string_view, 26> kSigns = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                             "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                             ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
        const auto found = std::ranges::find_if(kSigns, [&](std::string_view s) { return here(s); });
        if (found == kSigns.end()) {
            std::size_t at = at_;
            const auto c = static_cast<unsigned>(next_code_point(source_, at));
            complain("the character U+{:04X} in a tag", c);
        }
        const char c = (*found)[0];
        if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
        if (c == ')' || c == ']' || c == '}') {
            if (open.empty() || open.back() != c) complain("'{}' closes nothing", c);
            open.pop_back();
        }
        put(TokenKind::sign, std::string(*found));
        at_ += found->size();
    }

    std::string source_;
    std::vector<Token> tokens_;
    std::size_t at_ = 0;
    int line_ = 1;
    bool line_starts_ = true;  // the text that comes next begins a line
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace outrider::jinja
