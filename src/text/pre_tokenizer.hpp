// Cuts text into words before BPE, by regular expressions (PCRE2 with its compiler where it has one).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::detail {

/// A compiled expression. Immutable; safe to share between threads.
class WordPattern {
public:
    /// `\s` and `\S` mean Unicode's White_Space, as in the libraries that tokenisers are trained with (PCRE2's own \s
    /// has U+180E as well). Throws Error for an expression that PCRE2 refuses.
    explicit WordPattern(std::string_view expression);

    /// The matches in every text of `texts` and the gaps between them, in order: nothing is lost. Valid UTF-8 only.
    [[nodiscard]] std::vector<std::string_view> split(std::span<const std::string_view> texts) const;

private:
    struct Code;
    std::shared_ptr<const Code> code_;
};

/// Patterns in order; each cuts the words that the ones before it left.
class PreTokenizer {
public:
    void add(std::string_view expression) { patterns_.emplace_back(expression); }

    /// The words of `text`, one after another. `text` is valid UTF-8.
    [[nodiscard]] std::vector<std::string_view> words(std::string_view text) const;

    /// A rule by the name that GGUF files give it in tokenizer.ggml.pre. Throws Error for an unknown one.
    [[nodiscard]] static PreTokenizer by_name(std::string_view name);

private:
    std::vector<WordPattern> patterns_;
};

/// GPT-2's expression (Radford et al. 2019, encoder.py).
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Every digit a word of its own.
inline constexpr std::string_view kDigitPattern = R"(\p{N})";

}  // namespace outrider::detail
