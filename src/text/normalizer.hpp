// Text to text, before it is cut into words: the "normalizer" of a tokenizer.json.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/formats/detail/json_text.hpp>

namespace outrider::detail {

/// Steps in order. Immutable once read; safe to share between threads. Format: the serialisation code of Hugging Face's
/// library `tokenizers` (tokenizers/src/normalizers).
class Normalizer {
public:
    /// Reads NFC, NFD, NFKC, NFKD, Nmt, Lowercase, Strip, StripAccents, Prepend, Replace and Sequences of them; null
    /// has no steps. Throws Error for others and names them. `name` stands in messages.
    [[nodiscard]] static Normalizer read(const std::string& name, const Json& normalizer);

    /// The text after all steps. `text` is valid UTF-8, and so is the result. Throws Error where the steps would make a
    /// text many times as long.
    [[nodiscard]] std::string operator()(std::string text) const;

    [[nodiscard]] bool empty() const noexcept { return steps_.empty(); }

    /// Whether a text gets something before it: the last Prepend's; empty when none.
    [[nodiscard]] const std::string& prefix() const noexcept { return prefix_; }

private:
    void add(const std::string& name, const Json& step);

    std::vector<std::function<std::string(std::string)>> steps_;
    std::string prefix_;
};

}  // namespace outrider::detail
