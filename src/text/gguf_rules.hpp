// What a GGUF file's tokenizer.ggml.pre stands for: how words are cut, and what the file's own keys may leave out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "pre_tokenizer.hpp"

namespace outrider::detail {

struct GgufRule {
    PreTokenizer words;
    bool whole_words = false;  ///< a word that is a token is that token (ignore_merges), which GGUF has no key for
    bool adds_bos = false;     ///< where the file has no add_bos_token
    /// Words are characters with spaces as U+2581, and bytes "<0x00>" to "<0xFF>" for those that are no tokens; else
    /// they are bytes in GPT-2's alphabet.
    bool characters = false;
};

/// The rule of a name. Throws Error for one that is not known, and lists those that are.
[[nodiscard]] GgufRule gguf_rule(std::string_view name);

/// Every name that is known, rules together.
[[nodiscard]] std::vector<std::string> gguf_rule_names();

}  // namespace outrider::detail
