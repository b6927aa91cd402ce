// Chat messages to token ids, by the template that a checkpoint brings (Jinja), by one of a file, or by a built-in one.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
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
struct OUTRIDER_API ChatMessage {
    std::string role;  ///< "system", "user", "assistant", "tool", or another that the template knows
    std::string content;
    std::string more = {};  ///< JSON object of further keys (tool_calls, name), or of a `content` that is no string;
                            ///< may be empty

    /// From a JSON object as `transformers` and the APIs of servers have it. Throws Error.
    [[nodiscard]] static ChatMessage from_json(std::string_view json);

    /// The same object in one line.
    [[nodiscard]] std::string to_json() const;
};

/// A conversation with what else its template may read.
struct OUTRIDER_API Chat {
    std::vector<ChatMessage> messages;
    std::string variables = {};  ///< JSON object: tools, documents, enable_thinking and the like; may be empty

    /// From a JSON object with `messages`. Every other key is a variable; `chat_template_kwargs` holds more of them.
    /// Throws Error.
    [[nodiscard]] static Chat from_json(std::string_view json);
};

/// What ends the user's words: a token where the vocabulary has one for it, else a string.
struct UserEnding {
    std::optional<TokenId> token = {};
    std::string text = {};
};

/// An immutable value; copies are cheap. The text is that of `transformers` (apply_chat_template). Names of special
/// tokens that the template writes are tokens. What a conversation brings is plain text, wherever the template puts it:
/// no user can close a turn where the format marks turns by special tokens. A role that is a plain word may be part of
/// a token's name ("<|" + role + "|>"). Llama 2 and Vicuna mark turns by ordinary words, which no encoding can tell
/// from a user's.
class OUTRIDER_API ChatTemplate {
public:
    /// The time that templates write as today's date.
    using Clock = std::function<std::time_t()>;

    /// chatml, llama2, llama3, mistral, vicuna or zephyr. Throws Error for another name.
    [[nodiscard]] static ChatTemplate by_name(std::string_view name);

    /// Jinja `source`, where there are tools `with_tools` if that is not empty. Throws Error, saying what to do, when
    /// the source is empty or has parts that are not supported; conversations that need such a part throw as well.
    [[nodiscard]] static ChatTemplate parse(std::string_view source, std::string_view with_tools = {});

    /// The one that a checkpoint brings. Throws Error like parse.
    [[nodiscard]] static ChatTemplate of(const Tokenizer& tokenizer);

    /// The same with another clock: a fixed time gives equal prompts every day.
    [[nodiscard]] ChatTemplate with_clock(Clock clock) const;

    /// The conversation as text, ready for the assistant's next turn. Throws Error for no messages and for what the
    /// template refuses. `variables`: see Chat.
    [[nodiscard]] std::string render(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                     std::string_view variables = {}) const;

    /// Its ids. Nothing is added to the text, no begin token either: the template writes it where the model wants one.
    [[nodiscard]] std::vector<TokenId> encode(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                              std::string_view variables = {}) const;

    /// Ids of a conversation in which the user's words come next, after the default system turn where there is one. The
    /// target can write such words itself.
    [[nodiscard]] std::vector<TokenId> encode_user_opening(const Tokenizer& tokenizer) const;

    /// See UserEnding. A special token adds no text, so no stop string would find it.
    [[nodiscard]] UserEnding user_ending(const Tokenizer& tokenizer) const;

    /// Of a built-in one; empty for others.
    [[nodiscard]] std::string name() const;

private:
    struct State;
    explicit ChatTemplate(std::shared_ptr<const State> state) : state_(std::move(state)) {}

    std::shared_ptr<const State> state_;
};

}  // namespace outrider
