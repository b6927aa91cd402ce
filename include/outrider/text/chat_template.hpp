// Chat messages to token ids, by built-in formats that are chosen by name or by the marks of a checkpoint's template.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

class Tokenizer;

/// One turn.
struct ChatMessage {
    std::string role;  ///< "system" (first only, where the format has it), "user", "assistant"
    std::string content;
};

/// What ends the user's words: a token where the vocabulary has one for it, else a string.
struct UserEnding {
    std::optional<TokenId> token = {};
    std::string text = {};
};

/// An immutable value. Contents are plain text: the name of a special token in them is text, so no user can close a
/// turn where the format marks turns by special tokens (chatml, llama3, zephyr's ends). Llama 2, Vicuna and the first
/// Mistral models mark turns by ordinary words, which no encoding can tell from a user's.
class OUTRIDER_API ChatTemplate {
public:
    /// chatml, llama2, llama3, mistral, vicuna or zephyr. Throws Error for another name.
    [[nodiscard]] static ChatTemplate by_name(std::string_view name);

    /// By marks in the Jinja `source` of a checkpoint. ChatML's and Llama 3.1's default system turns are taken from it.
    /// Throws Error, saying what to do, when the source is empty or of another format.
    [[nodiscard]] static ChatTemplate detect(std::string_view source);

    /// Ids of the conversation, ready for the assistant's next turn. Throws Error for no messages, roles that the
    /// format does not have, and a vocabulary without the format's special tokens.
    [[nodiscard]] std::vector<TokenId> encode(std::span<const ChatMessage> messages, const Tokenizer& tokenizer) const;

    /// Ids of a conversation in which the user's words come next, after the default system turn where there is one. The
    /// target can write such words itself.
    [[nodiscard]] std::vector<TokenId> encode_user_opening(const Tokenizer& tokenizer) const;

    /// See UserEnding. A special token adds no text, so no stop string would find it.
    [[nodiscard]] UserEnding user_ending(const Tokenizer& tokenizer) const;

    [[nodiscard]] std::string name() const;

    /// The system turn that is put first when a conversation brings none; empty: none is put.
    [[nodiscard]] const std::string& default_system() const noexcept { return default_system_; }

private:
    enum class Format { chatml, llama2, llama3, mistral, vicuna, zephyr };
    explicit ChatTemplate(Format format) : format_(format) {}

    /// No messages: up to the user's words.
    [[nodiscard]] std::vector<TokenId> write(std::span<const ChatMessage> messages, const Tokenizer& tokenizer) const;

    Format format_;
    bool dated_ = false;  // Llama 3.1: dates before the system's text
    std::string default_system_;
};

}  // namespace outrider
