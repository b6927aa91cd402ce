#include "distilled_file.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>

namespace outrider::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::uint64_t hash_more(std::uint64_t hash, std::string_view text) {
    hash = mix64(hash ^ text.size());
    for (const char c : text) hash = mix64(hash ^ static_cast<unsigned char>(c));
    return hash;
}

/// As the line of distilled text has them, the answer left out. A raw text counts as messages_of counts its prompt.
std::vector<ChatMessage> messages_but_last(const json& row) {
    if (const auto prompt = row.find("prompt"); prompt != row.end()) return {{"user", prompt->get<std::string>()}};
    std::vector<ChatMessage> messages;
    for (const json& message : row.at("messages"))
        messages.push_back({message.at("role").get<std::string>(), message.at("content").get<std::string>()});
    if (!messages.empty()) messages.pop_back();
    return messages;
}

/// Whether a text without line break can be what a killed run left of a line.
bool begins_a_line(std::string_view text) {
    constexpr std::string_view kBeginning = R"({"id":")";
    std::string packed;  // white space between the parts of JSON means nothing
    for (std::size_t i = 0; i < text.size() && packed.size() < kBeginning.size(); ++i)
        if (text[i] != ' ') packed += text[i];
    return packed == kBeginning.substr(0, packed.size());
}

}  // namespace

std::string prompt_id(const PromptRow& row) {
    std::uint64_t hash = mix64(row.sample);
    for (const ChatMessage& message : messages_of(row))
        hash = hash_more(hash_more(hash, message.role), message.content);
    return fmt::format("prompt-{:016x}", hash);
}

std::vector<ChatMessage> messages_of(const PromptRow& row) {
    std::vector<ChatMessage> messages = row.messages;
    if (row.text) messages.push_back({"user", *row.text});
    return messages;
}

DistilledFile::Key DistilledFile::key_of(std::string_view id, const std::vector<ChatMessage>& messages,
                                         std::uint64_t sample) {
    Key key = fmt::format("{}:{}{}\n", id.size(), id, sample);
    for (const ChatMessage& message : messages)
        key += fmt::format("{}:{}{}:{}", message.role.size(), message.role, message.content.size(), message.content);
    return key;
}

DistilledFile::DistilledFile(fs::path path, bool raw) : path_(std::move(path)), raw_(raw) {
    std::error_code error;
    if (!fs::exists(path_, error)) {
        const fs::path folder = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
        require(fs::is_directory(folder, error) && ::access(folder.c_str(), W_OK) == 0,
                "--output: '{}' cannot be written; is its folder there?", path_.string());
        return;
    }
    require(fs::is_regular_file(path_, error),
            "--output: '{}' is no ordinary file; answers are kept in one, so that a "
            "stopped run goes on",
            path_.string());
    require(::access(path_.c_str(), R_OK | W_OK) == 0, "--output: '{}' cannot be read and written ({})", path_.string(),
            std::strerror(errno));
    std::ifstream in(path_, std::ios::binary);
    std::string line;
    std::int64_t number = 1;
    for (; std::getline(in, line) && !in.eof(); ++number) {
        read_line(line, number);
        whole_ += line.size() + 1;
    }
    require(!in.bad(), "--output: reading '{}' failed", path_.string());
    if (!line.empty()) read_end(line, number);
}

DistilledFile::~DistilledFile() {
    if (file_ != nullptr) (void)std::fclose(file_);  // every line was written out already
}

void DistilledFile::read_line(const std::string& line, std::int64_t number) {
    outrider::detail::check_json_depth(line, fmt::format("{}:{}", path_.string(), number));
    try {
        const json row = json::parse(line);
        const auto id = row.at("id").get<std::string>();
        (void)row.at("completion_ids");
        require(row.contains("prompt") == raw_, "{}:{}: the file holds {}; give another --output, or {}",
                path_.string(), number, raw_ ? "conversations" : "raw texts", raw_ ? "leave out --raw" : "--raw");
        ++answers_[key_of(id, messages_but_last(row), row.value("sample", std::uint64_t{0}))];
        ids_.insert(id);
        ++size_;
    } catch (const json::exception& error) {
        fail("{}:{}: not a line of distilled text ({}); give another --output", path_.string(), number,
             outrider::detail::json_reason(error));
    }
}

/// What stands behind the last line break: a whole line that lost it, or half a line.
void DistilledFile::read_end(const std::string& line, std::int64_t number) {
    if (!json::accept(line)) {
        require(begins_a_line(line), "{}:{}: not a line of distilled text; give another --output", path_.string(),
                number);
        return;
    }
    read_line(line, number);
    whole_ += line.size();
    break_missing_ = true;
}

std::vector<PromptRow> DistilledFile::left_of(std::vector<PromptRow> rows) const {
    std::map<Key, std::int64_t> seen;
    std::map<std::string, std::int64_t> unnamed;
    std::vector<PromptRow> left;
    for (PromptRow& row : rows) {
        if (!row.named) {
            row.id = prompt_id(row);
            const std::int64_t equal = ++unnamed[row.id];
            if (equal > 1) row.id += fmt::format("-{}", equal);
        }
        const Key key = key_of(row.id, messages_of(row), row.sample);
        const auto there = answers_.find(key);
        if (++seen[key] > (there == answers_.end() ? 0 : there->second)) left.push_back(std::move(row));
    }
    return left;
}

void DistilledFile::open() {
    std::error_code error;
    if (fs::exists(path_, error) && fs::file_size(path_) > whole_) fs::resize_file(path_, whole_);
    file_ = std::fopen(path_.c_str(), "ae");
    require(file_ != nullptr, "--output: '{}' cannot be written ({})", path_.string(), std::strerror(errno));
    if (break_missing_) (void)std::fputc('\n', file_);
}

void DistilledFile::append(std::string_view line) {
    if (file_ == nullptr) open();
    const bool written = std::fwrite(line.data(), 1, line.size(), file_) == line.size() &&
                         std::fputc('\n', file_) != EOF && std::fflush(file_) == 0;
    require(written, "--output: writing '{}' failed ({}); the same command goes on once there is room", path_.string(),
            std::strerror(errno));
}

}  // namespace outrider::cli
