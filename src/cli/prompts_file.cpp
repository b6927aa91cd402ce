#include "prompts_file.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <outrider/core/error.hpp>

namespace outrider::cli {
namespace {

using nlohmann::json;

std::string string_field(const json& value, const std::string& name, const std::string& where) {
    require(value.is_string(), "{}: `{}` is {}, expected a string", where, name, value.type_name());
    return value.get<std::string>();
}

std::vector<ChatMessage> messages_field(const json& value, const std::string& where) {
    require(value.is_array() && !value.empty(), "{}: `messages` is not a list with at least one message", where);
    std::vector<ChatMessage> messages;
    for (const json& message : value) {
        require(message.is_object() && message.contains("role") && message.contains("content"),
                "{}: a message of `messages` has no `role` or no `content`", where);
        messages.push_back({string_field(message["role"], "role", where),
                            string_field(message["content"], "content", where)});
    }
    return messages;
}

PromptRow parse_row(const std::string& line, std::int64_t number, const std::string& where) {
    json row;
    try {
        row = json::parse(line);
    } catch (const json::parse_error& error) {
        fail("{}: not JSON ({}); a prompts file has one JSON object a line", where, error.what());
    }
    require(row.is_object(), "{}: {} where a JSON object is expected", where, row.type_name());
    PromptRow result{fmt::format("{}", number), std::nullopt, {}};
    if (const auto id = row.find("id"); id != row.end())
        result.id = id->is_string() ? id->get<std::string>() : id->dump();
    if (const auto prompt = row.find("prompt"); prompt != row.end()) {
        result.text = string_field(*prompt, "prompt", where);
    } else if (const auto turns = row.find("turns"); turns != row.end()) {
        require(turns->is_array() && !turns->empty(), "{}: `turns` is not a list with at least one turn", where);
        result.text = string_field(turns->front(), "turns", where);
    } else if (const auto messages = row.find("messages"); messages != row.end()) {
        result.messages = messages_field(*messages, where);
    } else {
        fail("{}: no `prompt`, `turns` or `messages` in it", where);
    }
    return result;
}

}  // namespace

std::vector<PromptRow> read_prompts(std::istream& in, const std::string& name, std::int64_t limit) {
    std::vector<PromptRow> rows;
    std::string line;
    for (std::int64_t number = 1; (limit == 0 || std::ssize(rows) < limit) && std::getline(in, line); ++number) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        rows.push_back(parse_row(line, number, fmt::format("{}:{}", name, number)));
    }
    require(!in.bad(), "{}: reading failed ({})", name, std::strerror(errno));
    require(!rows.empty(), "{}: no prompts in it; expected one JSON object a line", name);
    return rows;
}

std::vector<PromptRow> read_prompts(const std::string& path, std::int64_t limit) {
    if (path == "-") return read_prompts(std::cin, "standard input", limit);
    require(!std::filesystem::is_directory(path), "prompts file '{}' is a folder; expected a file of JSON lines", path);
    std::ifstream in(path);
    require(in.is_open(), "prompts file '{}' cannot be opened: {}", path, std::strerror(errno));
    return read_prompts(in, path, limit);
}

}  // namespace outrider::cli
