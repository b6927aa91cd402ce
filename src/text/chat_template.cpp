#include <outrider/text/chat_template.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <iomanip>
#include <locale>
#include <sstream>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/text/tokenizer.hpp>

#include "builtin_templates.hpp"
#include "json_object.hpp"
#include "jinja/from_json.hpp"
#include "jinja/template.hpp"

namespace outrider {
namespace {

using jinja::Origin;
using jinja::Text;
using jinja::Value;
using jinja::Variables;
using Json = nlohmann::ordered_json;

constexpr const char* kRemedy =
    "pass a built-in template by name (chatml, llama2, llama3, mistral, vicuna, zephyr: --template NAME, or the option "
    "chat_template), one of your own (--template-file FILE), or use prompts without one (--raw)";

/// datetime.now().strftime(format).
std::string formatted_date(std::time_t now, const std::string& format) {
    std::tm parts{};
    localtime_r(&now, &parts);
    std::ostringstream out;
    out.imbue(std::locale::classic());
    out << std::put_time(&parts, format.c_str());
    return std::move(out).str();
}

/// A role that is a plain word may be part of a token's name; any other is text like a content.
Origin role_origin(std::string_view role) {
    const auto plain = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    };
    return std::ranges::all_of(role, plain) ? Origin::source : Origin::user;
}

Json object_or_nothing(std::string_view text, const char* what) {
    return text.empty() ? Json::object() : detail::parse_object(text, what);
}

/// A message as `transformers` hands it to templates: without keys of the value null, and with the assistant's thoughts
/// under their usual names.
Value message_value(const ChatMessage& message, jinja::Meter& meter) {
    auto dict = std::make_shared<jinja::Dict>();
    const Json more = object_or_nothing(message.more, "the further keys of a message");
    const auto set = [&](const char* key, Value value) { dict->set(Value(Text(key)), std::move(value), meter); };
    const Json* thoughts = nullptr;
    for (const char* key : {"reasoning", "thinking", "reasoning_content"})
        if (more.contains(key) && !more[key].is_null()) thoughts = &more[key];
    if (thoughts != nullptr) set("thinking", jinja::from_json(*thoughts, meter));
    set("role", Value(Text(to_valid_utf8(message.role), role_origin(message.role))));
    if (!more.contains("content")) set("content", Value(Text(to_valid_utf8(message.content), Origin::user)));
    for (const auto& [key, value] : more.items())
        if (!value.is_null()) dict->set(Value(Text(key, Origin::user)), jinja::from_json(value, meter), meter);
    if (thoughts != nullptr) set("reasoning_content", jinja::from_json(*thoughts, meter));
    return Value(std::shared_ptr<const jinja::Dict>(std::move(dict)));
}

}  // namespace

struct ChatTemplate::State {
    jinja::Template plain;
    std::optional<jinja::Template> with_tools;
    const detail::BuiltinTemplate* builtin = nullptr;
    Clock clock = [] { return std::time(nullptr); };

    [[nodiscard]] Text render(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                              std::string_view variables) const;
    void check_vocabulary(const Tokenizer& tokenizer) const;
};

void ChatTemplate::State::check_vocabulary(const Tokenizer& tokenizer) const {
    if (builtin == nullptr) return;
    for (const std::string& name : builtin->needs)
        require(tokenizer.find_special(name).has_value(),
                "the chat template {} needs the special token {}, which the "
                "vocabulary does not have: name another template, or use a raw prompt (--raw)",
                builtin->name, name);
    require(!builtin->needs_eos || tokenizer.eos().has_value(),
            "the chat template {} needs an end token, and the "
            "vocabulary names none: name another template, or use a raw prompt (--raw)",
            builtin->name);
}

Text ChatTemplate::State::render(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                 std::string_view variables) const {
    require(!messages.empty(), "a conversation without messages; expected at least one");
    check_vocabulary(tokenizer);
    const Json given = object_or_nothing(variables, "the variables of a conversation");
    Variables all;
    try {
        jinja::Meter meter{jinja::Limits{}};
        for (const auto& [name, text] : tokenizer.named_tokens()) all.emplace_back(name, Value(Text(text)));
        std::vector<Value> list;
        for (const ChatMessage& message : messages) list.push_back(message_value(message, meter));
        all.emplace_back("messages", Value::list(std::move(list)));
        all.emplace_back("tools", jinja::None{});
        all.emplace_back("documents", jinja::None{});
        all.emplace_back("add_generation_prompt", Value(true));
        if (builtin != nullptr)
            all.emplace_back("marks_are_tokens", Value(tokenizer.find_special("[INST]").has_value()));
        for (const auto& [name, value] : given.items()) all.emplace_back(name, jinja::from_json(value, meter));
        const bool tools = given.contains("tools") && !given["tools"].is_null();
        const jinja::Template& used = tools && with_tools ? *with_tools : plain;
        return used.render(all, [this](const std::string& format) { return formatted_date(clock(), format); });
    } catch (const Error& error) {
        fail("the chat template{}{}: {}; change the conversation, or {}", builtin != nullptr ? " " : "",
             builtin != nullptr ? builtin->name : "", error.what(), kRemedy);
    }
}

ChatTemplate ChatTemplate::by_name(std::string_view name) {
    for (const detail::BuiltinTemplate& builtin : detail::builtin_templates())
        if (builtin.name == name)
            return ChatTemplate(
                std::make_shared<const State>(State{jinja::Template::parse(builtin.source), {}, &builtin}));
    fail("there is no chat template \"{}\"; {}", name, kRemedy);
}

ChatTemplate ChatTemplate::parse(std::string_view source, std::string_view with_tools) {
    require(!source.empty(), "the checkpoint has no chat template; {}", kRemedy);
    try {
        State state{jinja::Template::parse(to_valid_utf8(source)), {}};
        if (!with_tools.empty()) state.with_tools = jinja::Template::parse(to_valid_utf8(with_tools));
        return ChatTemplate(std::make_shared<const State>(std::move(state)));
    } catch (const Error& error) {
        fail("the chat template cannot be run: {}; {}", error.what(), kRemedy);
    }
}

ChatTemplate ChatTemplate::of(const Tokenizer& tokenizer) {
    const auto& named = tokenizer.chat_templates();
    const auto tools = std::ranges::find(named, "tool_use", &std::pair<std::string, std::string>::first);
    if (tokenizer.chat_template().empty() && !named.empty()) {
        std::string names;
        for (const auto& [name, source] : named) names += (names.empty() ? "" : ", ") + name;
        fail(
            "the checkpoint has chat templates by name ({}) and none by the name default; write the one you want to a "
            "file and pass it (--template-file FILE)",
            names);
    }
    return parse(tokenizer.chat_template(),
                 tools != named.end() ? std::string_view(tools->second) : std::string_view());
}

ChatTemplate ChatTemplate::with_clock(Clock clock) const {
    State state = *state_;
    state.clock = std::move(clock);
    return ChatTemplate(std::make_shared<const State>(std::move(state)));
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                 std::string_view variables) const {
    return state_->render(messages, tokenizer, variables).bytes();
}

namespace {

std::vector<TokenId> encode_text(const Text& text, const Tokenizer& tokenizer) {
    std::vector<TextSpan> plain;
    for (const Text::Span& span : text.user()) plain.push_back({span.begin, span.end});
    return tokenizer.encode(text.view(), plain);
}

/// A conversation of one user, up to that user's words and from their end on.
struct AroundUser {
    Text before, after;
};

AroundUser around_user(const Text& text) {
    require(!text.user().empty(), "the chat template does not show what users write; {}", kRemedy);
    const Text::Span words = text.user().front();
    return {text.slice(0, words.begin), text.slice(words.end, text.size())};
}

Text with_any_user(const auto& state, const Tokenizer& tokenizer) {
    const ChatMessage message{.role = "user", .content = "Hello"};
    return state.render(std::span(&message, 1), tokenizer, {});
}

}  // namespace

std::vector<TokenId> ChatTemplate::encode(std::span<const ChatMessage> messages, const Tokenizer& tokenizer,
                                          std::string_view variables) const {
    return encode_text(state_->render(messages, tokenizer, variables), tokenizer);
}

std::vector<TokenId> ChatTemplate::encode_user_opening(const Tokenizer& tokenizer) const {
    const Text before = around_user(with_any_user(*state_, tokenizer)).before;
    // A space before the words belongs to the first of them.
    return encode_text(before.slice(0, before.view().find_last_not_of(' ') + 1), tokenizer);
}

UserEnding ChatTemplate::user_ending(const Tokenizer& tokenizer) const {
    const Text after = around_user(with_any_user(*state_, tokenizer)).after;
    std::string_view rest = after.view();
    rest.remove_prefix(std::min(rest.find_first_not_of(" \n\r\t"), rest.size()));
    const std::vector<TokenId> ids = tokenizer.encode(rest, SpecialText::parse, TextPlace::middle);
    if (ids.empty()) return {};
    if (tokenizer.is_special(ids[0])) return {.token = ids[0]};
    // Words: to the end of their line, or to a special token.
    const auto special = std::ranges::find_if(ids, [&](TokenId id) { return tokenizer.is_special(id); });
    std::string words(rest.substr(0, rest.find('\n')));
    if (special != ids.end()) words = words.substr(0, words.find(tokenizer.piece(*special)));
    words.erase(words.find_last_not_of(" \t") + 1);
    return {.text = words};
}

std::string ChatTemplate::name() const {
    return state_->builtin != nullptr ? std::string(state_->builtin->name) : std::string();
}

}  // namespace outrider
