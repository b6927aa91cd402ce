// The output of `distill`: what it holds already, and lines added to it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/text/chat_template.hpp>

#include "prompts_file.hpp"

namespace outrider::cli {

/// The id of a row that names none: a hash of its prompt, so that rows of other files have other ids.
[[nodiscard]] std::string prompt_id(const PromptRow& row);

/// What a row's prompt is as messages.
[[nodiscard]] std::vector<ChatMessage> messages_of(const PromptRow& row);

/// Answers that are there are told by id, prompt and sample together: rows that share an id are all answered, each as
/// often as it stands in the prompts file, whatever was answered when a run stopped.
class DistilledFile {
public:
    /// Reads what is there, and changes nothing yet: a mistake that comes up later costs no line. Throws Error for what
    /// is no ordinary file, cannot be written, or holds a line that is no distilled text, or one of the other kind than
    /// `raw` says: a file holds conversations or raw texts.
    explicit DistilledFile(std::filesystem::path path, bool raw = false);
    DistilledFile(const DistilledFile&) = delete;
    DistilledFile& operator=(const DistilledFile&) = delete;
    ~DistilledFile();

    [[nodiscard]] const std::set<std::string>& ids() const noexcept { return ids_; }
    /// Answers that were there.
    [[nodiscard]] std::int64_t size() const noexcept { return size_; }

    /// Rows of a prompts file that are not answered yet, with the ids that they are answered under.
    [[nodiscard]] std::vector<PromptRow> left_of(std::vector<PromptRow> rows) const;

    /// Adds a line. The first one opens the file, and cuts off half a line that a killed run left.
    void append(std::string_view line);

private:
    using Key = std::string;
    [[nodiscard]] static Key key_of(std::string_view id, const std::vector<ChatMessage>& messages,
                                    std::uint64_t sample);
    void read_line(const std::string& line, std::int64_t number);
    void read_end(const std::string& line, std::int64_t number);
    void open();

    std::filesystem::path path_;
    bool raw_;
    std::map<Key, std::int64_t> answers_;
    std::set<std::string> ids_;
    std::int64_t size_ = 0;
    std::uintmax_t whole_ = 0;    ///< bytes of the lines that are whole
    bool break_missing_ = false;  ///< behind the last of them
    std::FILE* file_ = nullptr;
};

}  // namespace outrider::cli
