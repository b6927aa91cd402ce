#include "unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

namespace outrider::jinja {
namespace {

/// Characters whose upper case is several ones (Unicode's SpecialCasing.txt; Latin, Armenian and ligatures).
constexpr std::array kSeveral = {std::pair{char32_t{0xDF}, "SS"},        std::pair{char32_t{0x149}, "\u02BCN"},
                                 std::pair{char32_t{0x1F0}, "J\u030C"},  std::pair{char32_t{0x587}, "\u0535\u0552"},
                                 std::pair{char32_t{0x1E96}, "H\u0331"}, std::pair{char32_t{0x1E97}, "T\u0308"},
                                 std::pair{char32_t{0x1E98}, "W\u030A"}, std::pair{char32_t{0x1E99}, "Y\u030A"},
                                 std::pair{char32_t{0x1E9A}, "A\u02BE"}, std::pair{char32_t{0xFB00}, "FF"},
                                 std::pair{char32_t{0xFB01}, "FI"},      std::pair{char32_t{0xFB02}, "FL"},
                                 std::pair{char32_t{0xFB03}, "FFI"},     std::pair{char32_t{0xFB04}, "FFL"},
                                 std::pair{char32_t{0xFB05}, "ST"},      std::pair{char32_t{0xFB06}, "ST"}};

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

/// Bytes of the sequence that begins with `first`; 1 for what begins none.
std::size_t sequence_length(unsigned char first) {
    return first < 0xC2 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 1;
}

bool among(char32_t c, const std::string_view* characters) {
    if (characters == nullptr) return is_space(c);
    for (std::size_t at = 0; at < characters->size();)
        if (next_code_point(*characters, at) == c) return true;
    return false;
}

}  // namespace

char32_t next_code_point(std::string_view text, std::size_t& at) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(at);
    const std::size_t length = sequence_length(first);
    if (length == 1 || at + length > text.size()) {
        ++at;
        return first < 0x80 ? first : 0xFFFD;
    }
    char32_t c = first & (0x7F >> length);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(at + i) & 0xC0) != 0x80) {
            ++at;
            return 0xFFFD;
        }
        c = c << 6 | (byte(at + i) & 0x3F);
    }
    at += length;
    return c;
}

void append_code_point(std::string& text, char32_t c) {
    utf8proc_uint8_t bytes[4];
    const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
    if (count > 0)
        text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count));
    else
        text += "\uFFFD";
}

std::size_t code_points(std::string_view text) {
    if (is_ascii(text)) return text.size();
    std::size_t count = 0;
    for (std::size_t at = 0; at < text.size(); ++count) (void)next_code_point(text, at);
    return count;
}

std::size_t byte_of(std::string_view text, std::size_t index) {
    if (is_ascii(text)) return std::min(index, text.size());
    std::size_t at = 0;
    for (std::size_t i = 0; i < index && at < text.size(); ++i) (void)next_code_point(text, at);
    return at;
}

bool is_space(char32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_letter(char32_t c) {
    const auto kind = category(c);
    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT ||
           kind == UTF8PROC_CATEGORY_LM || kind == UTF8PROC_CATEGORY_LO;
}

bool is_digit(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_printable(char32_t c) {
    if (c == ' ') return true;
    switch (category(c)) {
        case UTF8PROC_CATEGORY_CC:
        case UTF8PROC_CATEGORY_CF:
        case UTF8PROC_CATEGORY_CS:
        case UTF8PROC_CATEGORY_CO:
        case UTF8PROC_CATEGORY_CN:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP:
        case UTF8PROC_CATEGORY_ZS: return false;
        default: return true;
    }
}

bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }

void append_upper(std::string& text, char32_t c) {
    if (c < 0x80) return text.push_back(static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c));
    for (const auto& [from, to] : kSeveral)
        if (from == c) return void(text += to);
    append_code_point(text, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
}

void append_lower(std::string& text, char32_t c) {
    if (c < 0x80) return text.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c));
    if (c == 0x130) return void(text += "i\u0307");
    append_code_point(text, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

void append_folded(std::string& text, char32_t c) {
    utf8proc_int32_t folded[8];
    int last_class = UTF8PROC_BOUNDCLASS_START;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, std::ssize(folded),
                                               UTF8PROC_CASEFOLD, &last_class);
    if (count < 0 || count > std::ssize(folded)) return append_lower(text, c);
    for (utf8proc_ssize_t i = 0; i < count; ++i) append_code_point(text, static_cast<char32_t>(folded[i]));
}

void append_title(std::string& text, char32_t c) {
    for (const auto& [from, to] : kSeveral) {
        if (from != c) continue;
        std::size_t at = 0;
        append_code_point(text, next_code_point(to, at));
        while (std::string_view(to).size() > at) append_lower(text, next_code_point(to, at));
        return;
    }
    if (c < 0x80) return append_upper(text, c);
    append_code_point(text, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
}

std::size_t left_of_text(std::string_view text, const std::string_view* characters) {
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        if (!among(next_code_point(text, at), characters)) return begin;
    }
    return text.size();
}

std::size_t right_of_text(std::string_view text, const std::string_view* characters) {
    std::size_t end = text.size();
    while (end > 0) {
        std::size_t begin = end - 1;
        while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
        std::size_t at = begin;
        if (!among(next_code_point(text, at), characters)) return end;
        end = at == end ? begin : end - 1;
    }
    return 0;
}

}  // namespace outrider::jinja
