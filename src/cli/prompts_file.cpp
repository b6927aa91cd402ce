#include "prompts_file.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>

namespace outrider::cli {
namespace {

using json = nlohmann::ordered_json;  // templates may write tools as they came

std::string string_field(const json& value, const std::string& name, const std::string& where) {
    require(value.is_string(), "{}: `{}` is {}, expected a string", where, name, value.type_name());
    return value.get<std::string>();
}

std::vector<ChatMessage> messages_field(const json& value, const std::string& where) {
    require(value.is_array() && !value.empty(), "{}: `messages` is not a list with at least one message", where);
    std::vector<ChatMessage> messages;
    for (const json& message : value) {
        try {
            messages.push_back(ChatMessage::from_json(message.dump()));
        } catch (const Error& error) {
            fail("{}: {}", where, error.what());
        }
    }
    return messages;
}

/// What beside its messages a row has for the chat template. Other keys of rows are the user's own.
std::string variables_of(const json& row, const std::string& where) {
    json variables = json::object();
    for (const char* key : {"tools", "documents"})
        if (row.contains(key)) variables[key] = row[key];
    if (const auto more = row.find("chat_template_kwargs"); more != row.end()) {
        require(more->is_object(), "{}: `chat_template_kwargs` is {}, expected an object", where, more->type_name());
        for (const auto& [key, value] : more->items()) variables[key] = value;
    }
    return variables.empty() ? std::string() : variables.dump();
}

PromptRow parse_row(const std::string& line, std::int64_t number, const std::string& where) {
    outrider::detail::check_json_depth(line, where);
    json row;
    try {
        row = json::parse(line);
    } catch (const json::exception& error) {
        fail("{}: not JSON ({}); a prompts file has one JSON object a line", where,
             outrider::detail::json_reason(error));
    }
    require(row.is_object(), "{}: {} where a JSON object is expected", where, row.type_name());
    PromptRow result{.id = fmt::format("{}", number), .text = std::nullopt, .messages = {}, .variables = {}};
    if (const auto id = row.find("id"); id != row.end() && !id->is_null())
        result.id = id->is_string() ? id->get<std::string>() : id->dump(), result.named = true;
    if (const auto sample = row.find("sample"); sample != row.end()) {
        require(sample->is_number_unsigned(), "{}: `sample` is {}, expected a whole number of at least 0", where,
                sample->dump());
        result.sample = sample->get<std::uint64_t>();
    }
    if (const auto prompt = row.find("prompt"); prompt != row.end()) {
        result.text = string_field(*prompt, "prompt", where);
    } else if (const auto turns = row.find("turns"); turns != row.end()) {
        require(turns->is_array() && !turns->empty(), "{}: `turns` is not a list with at least one turn", where);
        result.text = string_field(turns->front(), "turns", where);
    } else if (const auto messages = row.find("messages"); messages != row.end()) {
        result.messages = messages_field(*messages, where);
        result.variables = variables_of(row, where);
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
    if (path == "-") {
        std::istringstream in(read_standard_input());
        return read_prompts(in, "standard input", limit);
    }
    require(!std::filesystem::is_directory(path), "prompts file '{}' is a folder; expected a file of JSON lines", path);
    std::ifstream in(path);
    require(in.is_open(), "prompts file '{}' cannot be opened: {}", path, std::strerror(errno));
    return read_prompts(in, path, limit);
}

std::string read_standard_input() {
    std::string text;
    std::array<char, 1 << 16> part{};
    while (const std::size_t count = std::fread(part.data(), 1, part.size(), stdin)) text.append(part.data(), count);
    require(std::ferror(stdin) == 0, "standard input: reading failed ({})", std::strerror(errno));
    return text;
}

}  // namespace outrider::cli
