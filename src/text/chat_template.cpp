#include <outrider/text/chat_template.hpp>

#include <fmt/format.h>

#include <array>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/text/tokenizer.hpp>

namespace outrider {
namespace {

/// Ids of special tokens and of the text between them. Text on both sides of a call is encoded as one, since words may
/// reach across ("user\n" and a content that begins with line breaks).
class TurnWriter {
public:
    explicit TurnWriter(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

    void text(std::string_view words) { open_ += words; }

    void token(TokenId id) {
        close();
        ids_.push_back(id);
        place_ = TextPlace::middle;
    }

    /// What comes next is encoded as a text of its own.
    void begin_text() {
        close();
        place_ = TextPlace::start;
    }

    /// A special token of the format. Throws Error when the vocabulary has none of that name.
    void special(std::string_view name) {
        const auto id = tokenizer_.find_special(name);
        require(id.has_value(), "the chat template needs the special token {}, which the vocabulary does not have: name "
                "another template, or use a raw prompt (--raw)", name);
        token(*id);
    }

    /// A mark that is a special token in some vocabularies and ordinary text in others.
    void mark(std::string_view name) {
        if (const auto id = tokenizer_.find_special(name)) token(*id);
        else text(name);
    }

    [[nodiscard]] bool has(std::string_view name) const { return tokenizer_.find_special(name).has_value(); }

    void bos() {
        if (const auto id = tokenizer_.bos()) token(*id);
        begin_text();
    }

    /// The end of a turn; nothing else keeps turns apart in the formats that use it.
    void eos() {
        const auto id = tokenizer_.eos();
        require(id.has_value(), "the chat template needs an end token, and the vocabulary names none: name another "
                "template, or use a raw prompt (--raw)");
        token(*id);
    }

    [[nodiscard]] std::vector<TokenId> finish() {
        close();
        return std::move(ids_);
    }

private:
    void close() {
        if (open_.empty()) return;
        const auto more = tokenizer_.encode(open_, SpecialText::plain, place_);
        ids_.insert(ids_.end(), more.begin(), more.end());
        open_.clear();
    }

    const Tokenizer& tokenizer_;
    std::vector<TokenId> ids_;
    std::string open_;
    TextPlace place_ = TextPlace::start;  // of open_
};

/// Without the white space at both ends (Jinja's trim).
std::string_view trimmed(std::string_view text) {
    constexpr std::string_view kSpaces = " \t\r\n\v\f";
    const auto first = text.find_first_not_of(kSpaces);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

/// A conversation in three parts. Throws Error unless users and assistants take turns, a user first and last.
struct Turns {
    std::string system;
    std::span<const ChatMessage> turns;

    Turns(std::span<const ChatMessage> messages, std::string_view format) : turns(messages) {
        if (!turns.empty() && turns.front().role == "system") {
            system = turns.front().content;
            turns = turns.subspan(1);
        }
        for (std::size_t i = 0; i < turns.size(); ++i) {
            const char* expected = i % 2 == 0 ? "user" : "assistant";
            require(turns[i].role == expected, "chat template {}: turn {} is of the role \"{}\"; expected \"{}\", "
                    "turn about after an optional system turn", format, i + 1, turns[i].role, expected);
        }
        require(turns.size() % 2 == 1, "chat template {}: the last turn must be the user's", format);
    }
};

void write_chatml(std::span<const ChatMessage> messages, const std::string& default_system, TurnWriter& out) {
    const auto turn = [&](std::string_view role, std::string_view content) {
        out.special("<|im_start|>");
        out.text(role);
        out.text("\n");
        out.text(content);
        out.special("<|im_end|>");
        out.text("\n");
    };
    if (!default_system.empty() && (messages.empty() || messages.front().role != "system"))
        turn("system", default_system);
    for (const ChatMessage& message : messages) turn(message.role, message.content);
    out.special("<|im_start|>");
    out.text(messages.empty() ? "user\n" : "assistant\n");
}

void write_llama3(std::span<const ChatMessage> messages, const std::string& system_head, TurnWriter& out) {
    const auto head = [&](std::string_view role) {
        out.special("<|start_header_id|>");
        out.text(role);
        out.special("<|end_header_id|>");
        out.text("\n\n");
    };
    const auto turn = [&](std::string_view role, std::string_view before, std::string_view content) {
        head(role);
        out.text(before);
        out.text(trimmed(content));
        out.special("<|eot_id|>");
    };
    out.bos();
    if (!system_head.empty() && (messages.empty() || messages.front().role != "system")) turn("system", system_head, "");
    for (const ChatMessage& message : messages) {
        turn(message.role, message.role == "system" ? std::string_view(system_head) : std::string_view(),
             message.content);
    }
    head(messages.empty() ? "user" : "assistant");
}

void write_llama2(std::span<const ChatMessage> messages, TurnWriter& out) {
    if (messages.empty()) {
        out.bos();
        return out.text("[INST]");
    }
    const Turns chat(messages, "llama2");
    for (std::size_t i = 0; i < chat.turns.size(); ++i) {
        if (i % 2 == 1) {
            out.text(" ");
            out.text(trimmed(chat.turns[i].content));
            out.text(" ");
            out.eos();
            continue;
        }
        std::string content = chat.turns[i].content;
        if (i == 0 && !chat.system.empty()) content = "<<SYS>>\n" + chat.system + "\n<</SYS>>\n\n" + content;
        out.bos();
        out.text("[INST] ");
        out.text(trimmed(content));
        out.text(" [/INST]");
    }
}

/// Mistral 7B Instruct. Its marks are words in the first two versions and tokens from the third on, where each text
/// between them is encoded as one of its own (mistral-common). A system text comes before the first user's words.
void write_mistral(std::span<const ChatMessage> messages, TurnWriter& out) {
    const bool tokens = out.has("[INST]") && out.has("[/INST]");
    const auto mark = [&](const char* name, std::string_view before, std::string_view behind) {
        if (!tokens) return out.text(fmt::format("{}{}{}", before, name, behind));
        out.special(name);
        out.begin_text();
    };
    out.bos();
    if (messages.empty()) return mark("[INST]", "", "");
    const Turns chat(messages, "mistral");
    for (std::size_t i = 0; i < chat.turns.size(); ++i) {
        if (i % 2 == 1) {
            if (!tokens) out.text(" ");
            out.text(chat.turns[i].content);
            out.eos();
            continue;
        }
        mark("[INST]", "", " ");
        if (i == 0 && !chat.system.empty()) out.text(chat.system + "\n\n");
        out.text(chat.turns[i].content);
        mark("[/INST]", " ", "");
    }
}

void write_vicuna(std::span<const ChatMessage> messages, TurnWriter& out) {
    constexpr std::string_view kSystem =
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions.";
    out.bos();
    if (messages.empty()) {
        out.text(kSystem);
        return out.text(" USER:");
    }
    const Turns chat(messages, "vicuna");
    out.text(!chat.system.empty() ? std::string_view(chat.system) : kSystem);
    out.text(" ");
    for (std::size_t i = 0; i < chat.turns.size(); ++i) {
        const bool user = i % 2 == 0;
        out.text(user ? "USER: " : "ASSISTANT: ");
        out.text(chat.turns[i].content);
        if (user) out.text(" ");
        else out.eos();
    }
    out.text("ASSISTANT:");
}

void write_zephyr(std::span<const ChatMessage> messages, TurnWriter& out) {
    for (const ChatMessage& message : messages) {
        require(message.role == "system" || message.role == "user" || message.role == "assistant",
                "chat template zephyr: the role \"{}\"; expected system, user or assistant", message.role);
        out.mark("<|" + message.role + "|>");
        out.text("\n");
        out.text(message.content);
        out.eos();
        out.text("\n");
    }
    out.mark(messages.empty() ? "<|user|>" : "<|assistant|>");
    out.text("\n");
}

constexpr std::array kNames = {"chatml", "llama2", "llama3", "mistral", "vicuna", "zephyr"};

constexpr const char* kRemedy = "pass a built-in template by name (chatml, llama2, llama3, mistral, vicuna, zephyr: "
                                "--template NAME, or the option chat_template), or use prompts without one (--raw)";

/// The text of ChatML's system turn where the source has it as a literal; empty where it has none.
std::string literal_system(std::string_view source) {
    constexpr std::string_view kStart = "<|im_start|>system";
    for (auto at = source.find(kStart); at != std::string_view::npos; at = source.find(kStart, at + 1)) {
        std::string_view rest = source.substr(at + kStart.size());
        if (rest.starts_with("\\n")) rest.remove_prefix(2);
        else if (rest.starts_with("\n")) rest.remove_prefix(1);
        else continue;
        const std::string_view words = rest.substr(0, rest.find("<|im_end|>"));
        if (words.size() < rest.size() && !words.empty() && words.find_first_of("'\"{}\\") == std::string_view::npos) {
            return std::string(words);
        }
    }
    return {};
}

}  // namespace

ChatTemplate ChatTemplate::by_name(std::string_view name) {
    for (std::size_t i = 0; i < kNames.size(); ++i) {
        if (name == kNames[i]) return ChatTemplate(static_cast<Format>(i));
    }
    fail("there is no chat template \"{}\"; {}", name, kRemedy);
}

ChatTemplate ChatTemplate::detect(std::string_view source) {
    require(!source.empty(), "the checkpoint has no chat template; {}", kRemedy);
    const auto has = [&](std::string_view mark) { return source.find(mark) != std::string_view::npos; };
    if (has("<|im_start|>") && has("<|im_end|>") && !has("<|im_sep|>") && !has("<|im_middle|>")) {
        ChatTemplate result(Format::chatml);
        result.default_system_ = literal_system(source);
        return result;
    }
    if (has("<|start_header_id|>") && has("<|end_header_id|>") && has("<|eot_id|>")) {
        ChatTemplate result(Format::llama3);
        result.dated_ = has("Cutting Knowledge Date: December 2023");
        return result;
    }
    if (has("[INST]") && has("<<SYS>>")) return ChatTemplate(Format::llama2);
    // Later versions have turns of their own for the system's text.
    if (has("[INST]") && has("[/INST]") && !has("[SYSTEM_PROMPT]")) return ChatTemplate(Format::mistral);
    if (has("USER: ") && has("ASSISTANT:")) return ChatTemplate(Format::vicuna);
    // Phi-3 has the same marks and ends turns by <|end|>.
    if (has("<|user|>") && has("<|assistant|>") && has("eos_token") && !has("<|end|>")) {
        return ChatTemplate(Format::zephyr);
    }
    std::string shown(source.substr(0, 120));
    for (char& c : shown) {
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7E) c = ' ';
    }
    fail("the checkpoint's chat template is none of the built-in ones (it begins \"{}\"); {}", shown, kRemedy);
}

std::vector<TokenId> ChatTemplate::encode(std::span<const ChatMessage> messages, const Tokenizer& tokenizer) const {
    require(!messages.empty(), "a conversation without messages; expected at least one");
    return write(messages, tokenizer);
}

std::vector<TokenId> ChatTemplate::encode_user_opening(const Tokenizer& tokenizer) const {
    return write({}, tokenizer);
}

UserEnding ChatTemplate::user_ending(const Tokenizer& tokenizer) const {
    const auto token_or_text = [&](const char* mark) {
        const auto token = tokenizer.find_special(mark);
        return token ? UserEnding{.token = token} : UserEnding{.text = mark};
    };
    switch (format_) {
        case Format::chatml: return {.token = tokenizer.find_special("<|im_end|>")};
        case Format::llama3: return {.token = tokenizer.find_special("<|eot_id|>")};
        case Format::zephyr: return {.token = tokenizer.eos()};
        case Format::llama2: return {.text = "[/INST]"};  // words, whatever the vocabulary has: see write_llama2
        case Format::mistral: return token_or_text("[/INST]");
        case Format::vicuna: return {.text = "ASSISTANT:"};
    }
    return {};
}

std::vector<TokenId> ChatTemplate::write(std::span<const ChatMessage> messages, const Tokenizer& tokenizer) const {
    TurnWriter out(tokenizer);
    switch (format_) {
        case Format::chatml: write_chatml(messages, default_system_, out); break;
        case Format::llama2: write_llama2(messages, out); break;
        // The dates are those that Llama 3.1's template falls back to, so that equal prompts give equal ids.
        case Format::llama3:
            write_llama3(messages, dated_ ? "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" : "",
                         out);
            break;
        case Format::mistral: write_mistral(messages, out); break;
        case Format::vicuna: write_vicuna(messages, out); break;
        case Format::zephyr: write_zephyr(messages, out); break;
    }
    return out.finish();
}

std::string ChatTemplate::name() const { return kNames[static_cast<std::size_t>(format_)]; }

}  // namespace outrider
