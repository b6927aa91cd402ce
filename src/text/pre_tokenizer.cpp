#include "pre_tokenizer.hpp"

#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <cstdint>

#include <fmt/format.h>

#include <outrider/core/error.hpp>

#include "merge_bpe.hpp"
#include "unicode_text.hpp"

namespace outrider::detail {
namespace {

struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

std::string message_of(int error) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof(text));
    return reinterpret_cast<const char*>(text);
}

/// \s, \S, \w and \W spelled by what they stand for in Oniguruma, the library that published expressions are made for.
/// Its words have six numbers of Latin-1 and no others.
std::string with_unicode_classes(std::string_view expression) {
    constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
    std::string result;
    bool in_class = false;  // between square brackets
    for (std::size_t i = 0; i < expression.size(); ++i) {
        const char c = expression[i];
        if (c != '\\' || i + 1 == expression.size()) {
            if (c == '[' || c == ']') in_class = c == '[';
            result.push_back(c);
            continue;
        }
        const char letter = expression[++i];
        if (letter == 's')
            result += "\\p{White_Space}";
        else if (letter == 'S')
            result += "\\P{White_Space}";
        else if (letter == 'w')
            result += in_class ? kWord : fmt::format("[{}]", kWord);
        else if (letter == 'W' && !in_class)
            result += fmt::format("[^{}]", kWord);
        else
            result.push_back('\\'), result.push_back(letter);
    }
    return result;
}

}  // namespace

struct WordPattern::Code {
    std::unique_ptr<pcre2_code, FreeCode> code;
};

WordPattern::WordPattern(std::string_view expression) {
    const std::string source = with_unicode_classes(expression);
    int error = 0;
    PCRE2_SIZE offset = 0;
    auto code = std::make_shared<Code>();
    code->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
    if (code->code == nullptr) {
        fail("the tokenizer's expression {} cannot be compiled: {}", expression, message_of(error));
    }
    pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
    code_ = std::move(code);
}

std::vector<Cut> WordPattern::cut(std::string_view text, bool empty_matches) const {
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
    require(match != nullptr, "out of memory for a match");
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    const std::uint32_t options = PCRE2_NO_UTF_CHECK | (empty_matches ? 0 : PCRE2_NOTEMPTY);
    std::vector<Cut> cuts;
    std::size_t done = 0, position = 0;  // what is cut already, and where to look next
    bool after_match = false;
    while (position <= text.size() && (empty_matches || position < text.size())) {
        const int found = pcre2_match(code_->code.get(), subject, text.size(), position, options, match.get(), nullptr);
        if (found == PCRE2_ERROR_NOMATCH) break;
        if (found < 0) fail("the tokenizer's expression gives up on a text: {}", message_of(found));
        require(ends[0] >= position && ends[1] >= ends[0], "the tokenizer's expression moves backwards");
        if (ends[0] == ends[1] && after_match && ends[0] == done) {  // empty, and touches the match before it
            position = done < text.size() ? done + first_character(text.substr(done)).bytes : done + 1;
            continue;
        }
        if (ends[0] > done) cuts.push_back({text.substr(done, ends[0] - done), false});
        cuts.push_back({text.substr(ends[0], ends[1] - ends[0]), true});
        position = done = ends[1];
        after_match = true;
    }
    if (done < text.size()) cuts.push_back({text.substr(done), false});
    return cuts;
}

namespace {

/// One view of two that lie side by side.
std::string_view joined(std::string_view left, std::string_view right) {
    return {left.data(), left.size() + right.size()};
}

/// Matches and gaps to words. Appends to `words`.
void take_words(const std::vector<Cut>& cuts, CutBehavior behavior, std::vector<std::string_view>& words) {
    const std::size_t first = words.size();
    for (std::size_t i = 0; i < cuts.size(); ++i) {
        const Cut& cut = cuts[i];
        const bool before = i > 0 && cuts[i - 1].match;
        const bool joins = i > 0 && ((behavior == CutBehavior::contiguous && before == cut.match) ||
                                     (behavior == CutBehavior::with_previous && cut.match && !before) ||
                                     (behavior == CutBehavior::with_next && !cut.match && before));
        if (behavior == CutBehavior::removed && cut.match) continue;
        if (joins && words.size() > first)
            words.back() = joined(words.back(), cut.text);
        else
            words.push_back(cut.text);
    }
    words.erase(std::remove_if(words.begin() + static_cast<std::ptrdiff_t>(first), words.end(),
                               [](std::string_view word) { return word.empty(); }),
                words.end());
}

/// The cuts of a word as the pattern sees it in GPT-2's alphabet.
std::vector<Cut> cut_in_bytes(const WordPattern& pattern, std::string_view word) {
    std::string spelled;
    for (const char c : word) spelled += entry_of_byte(static_cast<std::uint8_t>(c));
    std::vector<Cut> cuts = pattern.cut(spelled);
    for (Cut& cut : cuts) {  // as many bytes of the word as there are characters in the cut
        const auto size =
            std::ranges::count_if(cut.text, [](char c) { return (static_cast<std::uint8_t>(c) & 0xC0) != 0x80; });
        cut.text = word.substr(0, static_cast<std::size_t>(size));
        word.remove_prefix(cut.text.size());
    }
    return cuts;
}

}  // namespace

std::vector<std::string_view> PreTokenizer::words(std::string_view text) const {
    std::vector<std::string_view> words, next;
    if (!text.empty()) words.push_back(text);
    for (const WordRule& rule : rules_) {
        next.clear();
        for (const std::string_view word : words) {
            std::vector<Cut> cuts = rule.in_bytes ? cut_in_bytes(rule.pattern, word) : rule.pattern.cut(word);
            if (rule.invert)
                for (Cut& cut : cuts) cut.match = !cut.match;
            take_words(cuts, rule.behavior, next);
        }
        words.swap(next);
    }
    return words;
}

std::string quoted(std::string_view text) {
    std::string result;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80 && std::isalnum(byte) == 0) result.push_back('\\');
        result.push_back(c);
    }
    return result;
}

}  // namespace outrider::detail
