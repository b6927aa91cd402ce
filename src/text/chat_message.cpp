// Messages and conversations from JSON and back.
#include <nlohmann/json.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/text/chat_template.hpp>

#include "json_object.hpp"

namespace outrider {

nlohmann::ordered_json detail::parse_object(std::string_view text, const char* what) {
    check_json_depth(text, what);
    nlohmann::ordered_json json;
    try {
        json = nlohmann::ordered_json::parse(text);
    } catch (const nlohmann::ordered_json::exception& error) {
        fail("{}: not JSON ({})", what, json_reason(error));
    }
    require(json.is_object(), "{}: {}, expected a JSON object", what, json.type_name());
    return json;
}

namespace {

using detail::parse_object;
using Json = nlohmann::ordered_json;

ChatMessage message_of(const Json& json) {
    require(json.is_object() && json.contains("role"), "a message is {}; expected an object with `role` and `content`",
            json.is_object() ? "without `role`" : json.type_name());
    require(json["role"].is_string(), "the `role` of a message is {}, expected a string", json["role"].type_name());
    ChatMessage message{.role = json["role"].get<std::string>(), .content = {}};
    const Json content = json.value("content", Json());
    require(content.is_string() || content.is_null() || content.is_array(),
            "the `content` of a message is {}, expected a string, a list of parts or null", content.type_name());
    require(!content.is_null() || json.size() > 1 + json.count("content"),
            "a message of the role \"{}\" has no `content`", message.role);
    Json more = Json::object();
    if (content.is_string())
        message.content = content.get<std::string>();
    else
        more["content"] = content;
    for (const auto& [key, value] : json.items())
        if (key != "role" && key != "content") more[key] = value;
    if (!more.empty()) message.more = more.dump();
    return message;
}

}  // namespace

ChatMessage ChatMessage::from_json(std::string_view json) { return message_of(parse_object(json, "a message")); }

std::string ChatMessage::to_json() const {
    Json json = {{"role", to_valid_utf8(role)}, {"content", to_valid_utf8(content)}};
    if (more.empty()) return json.dump();
    const Json others = parse_object(more, "the further keys of a message");
    for (const auto& [key, value] : others.items()) json[key] = value;
    return json.dump();
}

Chat Chat::from_json(std::string_view json) {
    const Json all = parse_object(json, "a conversation");
    require(all.contains("messages") && all["messages"].is_array(), "a conversation without a list `messages`");
    Chat chat;
    for (const Json& message : all["messages"]) chat.messages.push_back(message_of(message));
    Json variables = Json::object();
    for (const auto& [key, value] : all.items())
        if (key != "messages" && key != "chat_template_kwargs") variables[key] = value;
    if (all.contains("chat_template_kwargs")) {
        require(all["chat_template_kwargs"].is_object(), "`chat_template_kwargs` is {}, expected an object",
                all["chat_template_kwargs"].type_name());
        for (const auto& [key, value] : all["chat_template_kwargs"].items()) variables[key] = value;
    }
    if (!variables.empty()) chat.variables = variables.dump();
    return chat;
}

}  // namespace outrider
