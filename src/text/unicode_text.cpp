#include "unicode_text.hpp"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>

#include <outrider/core/error.hpp>

namespace outrider::detail {
namespace {

int combining_class(utf8proc_int32_t point) { return utf8proc_get_property(point)->combining_class; }

/// The full decomposition of every character, marks not in order yet.
std::u32string decomposed(std::string_view text, bool compatible) {
    const auto options =
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0));
    std::u32string result;
    result.reserve(text.size());
    std::array<utf8proc_int32_t, 32> parts;  // the longest decomposition has 18 code points
    int boundary = 0;
    while (!text.empty()) {
        const Character c = first_character(text);
        text.remove_prefix(c.bytes);
        const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.point), parts.data(),
                                                   static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
        require(count >= 0 && static_cast<std::size_t>(count) <= parts.size(),
                "the character {} cannot be "
                "normalized: {}",
                fmt::format("U+{:04X}", static_cast<std::uint32_t>(c.point)), utf8proc_errmsg(count));
        for (utf8proc_ssize_t i = 0; i < count; ++i)
            result.push_back(static_cast<char32_t>(parts[static_cast<std::size_t>(i)]));
    }
    return result;
}

/// Canonical order: each run of marks by combining class. The library's own sort takes quadratic time for long runs.
void order_marks(std::u32string& points) {
    const auto is_mark = [](char32_t c) {
        return c >= 0x300 && combining_class(static_cast<utf8proc_int32_t>(c)) != 0;
    };
    for (auto begin = points.begin(); begin != points.end();) {
        begin = std::find_if(begin, points.end(), is_mark);
        const auto end = std::find_if_not(begin, points.end(), is_mark);
        if (end - begin > 1)
            std::stable_sort(begin, end, [](char32_t a, char32_t b) {
                return combining_class(static_cast<utf8proc_int32_t>(a)) <
                       combining_class(static_cast<utf8proc_int32_t>(b));
            });
        begin = end;
    }
}

void compose(std::u32string& points) {
    static_assert(sizeof(char32_t) == sizeof(utf8proc_int32_t));
    const auto size = utf8proc_normalize_utf32(reinterpret_cast<utf8proc_int32_t*>(points.data()),
                                               static_cast<utf8proc_ssize_t>(points.size()),
                                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    require(size >= 0, "a text cannot be normalized: {}", utf8proc_errmsg(size));
    points.resize(static_cast<std::size_t>(size));
}

template <typename Change>
std::string changed(std::string_view text, Change change) {
    std::string result;
    result.reserve(text.size());
    while (!text.empty()) {
        const Character c = first_character(text);
        change(c.point, text.substr(0, c.bytes), result);
        text.remove_prefix(c.bytes);
    }
    return result;
}

bool is_mark(char32_t point) {
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(point));
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC || category == UTF8PROC_CATEGORY_ME;
}

/// The property White_Space, which no later version of Unicode may extend.
bool is_white_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_word(char32_t point) {
    switch (utf8proc_category(static_cast<utf8proc_int32_t>(point))) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_PC:
        case UTF8PROC_CATEGORY_MN:
        case UTF8PROC_CATEGORY_MC:
        case UTF8PROC_CATEGORY_ME: return true;
        default: break;
    }
    // Join_Control, and the symbols that Other_Alphabetic adds: circled and squared Latin letters.
    return point == 0x200C || point == 0x200D || (point >= 0x24B6 && point <= 0x24E9) ||
           (point >= 0x1F130 && point <= 0x1F149) || (point >= 0x1F150 && point <= 0x1F169) ||
           (point >= 0x1F170 && point <= 0x1F189);
}

/// Where the last character begins.
std::size_t last_character(std::string_view text) {
    std::size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    return start;
}

}  // namespace

bool is_ascii(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

Character first_character(std::string_view text) {
    utf8proc_int32_t point = 0;
    const auto size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &point);
    require(size > 0, "a text is not UTF-8; expected one that was checked");
    return {static_cast<char32_t>(point), static_cast<std::size_t>(size)};
}

void put_character(std::string& to, char32_t point) {
    std::array<utf8proc_uint8_t, 4> bytes;
    const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(point), bytes.data());
    to.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(size));
}

std::string normalized(std::string_view text, NormalForm form) {
    if (is_ascii(text)) return std::string(text);
    std::u32string points = decomposed(text, form == NormalForm::nfkc || form == NormalForm::nfkd);
    order_marks(points);
    if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(points);
    std::string result;
    result.reserve(text.size());
    for (const char32_t point : points) put_character(result, point);
    return result;
}

std::string lower_case(std::string_view text) {
    return changed(text, [](char32_t point, std::string_view, std::string& to) {
        if (point == 0x130)
            to += "i\xCC\x87";  // the one character whose lower case is two
        else
            put_character(to, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(point))));
    });
}

std::string without_marks(std::string_view text) {
    return changed(text, [](char32_t point, std::string_view same, std::string& to) {
        if (!is_mark(point)) to += same;
    });
}

std::size_t white_space_at_end(std::string_view text) {
    std::size_t end = text.size();
    while (end > 0) {
        const std::size_t start = last_character(text.substr(0, end));
        if (!is_white_space(first_character(text.substr(start)).point)) break;
        end = start;
    }
    return text.size() - end;
}

std::size_t white_space_at_front(std::string_view text) {
    std::size_t size = 0;
    while (size < text.size()) {
        const Character c = first_character(text.substr(size));
        if (!is_white_space(c.point)) break;
        size += c.bytes;
    }
    return size;
}

bool ends_with_word(std::string_view text) {
    return !text.empty() && is_word(first_character(text.substr(last_character(text))).point);
}

bool begins_with_word(std::string_view text) { return !text.empty() && is_word(first_character(text).point); }

}  // namespace outrider::detail
