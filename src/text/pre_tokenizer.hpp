// Cuts text into words before BPE, by regular expressions (PCRE2 with its compiler where it has one).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace outrider::detail {

/// A part of a text: a match of an expression, or what lies between two.
struct Cut {
    std::string_view text;
    bool match = false;
};

/// A compiled expression. Immutable; safe to share between threads.
class WordPattern {
public:
    /// `\s` and `\w` mean Unicode's White_Space and its words, as in the libraries that tokenisers are trained with
    /// (PCRE2's own \s has U+180E as well, its \w all numbers). Throws Error for an expression that PCRE2 refuses.
    explicit WordPattern(std::string_view expression);

    /// The matches in `text` and the gaps between them, in order: nothing is lost. With `empty_matches` those count
    /// too, but not right after another match. Valid UTF-8 only.
    [[nodiscard]] std::vector<Cut> cut(std::string_view text, bool empty_matches = false) const;

private:
    struct Code;
    std::shared_ptr<const Code> code_;
};

/// What becomes of the matches that a rule finds (SplitDelimiterBehavior of Python's `tokenizers`).
enum class CutBehavior { isolated, removed, contiguous, with_previous, with_next };

/// One step of a PreTokenizer.
struct WordRule {
    WordPattern pattern;
    CutBehavior behavior = CutBehavior::isolated;
    bool invert = false;    ///< the gaps count as matches, and the matches as gaps
    bool in_bytes = false;  ///< the pattern sees a word in GPT-2's alphabet, one character for each byte
};

/// Rules in order; each cuts the words that the ones before it left.
class PreTokenizer {
public:
    void add(std::string_view expression) { rules_.push_back({WordPattern(expression)}); }
    void add(WordRule rule) { rules_.push_back(std::move(rule)); }

    /// The words of `text`, one after another. `text` is valid UTF-8.
    [[nodiscard]] std::vector<std::string_view> words(std::string_view text) const;

private:
    std::vector<WordRule> rules_;
};

/// An expression that matches `text` itself.
[[nodiscard]] std::string quoted(std::string_view text);

/// GPT-2's expression (Radford et al. 2019, encoder.py).
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Every digit a word of its own.
inline constexpr std::string_view kDigitPattern = R"(\p{N})";

}  // namespace outrider::detail
