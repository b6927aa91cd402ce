// The prompts file: JSON lines with `prompt`, `turns` (the first is used) or `messages`, an `id`, and `sample`.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <vector>

#include <outrider/text/chat_template.hpp>

namespace outrider::cli {

/// One line. Exactly one of `text` and `messages` is there.
struct PromptRow {
    std::string id;                     ///< the line number where the line has none
    bool named = false;                 ///< whether the line has one
    std::uint64_t sample = 0;           ///< which draw of this prompt; see prompt_stream
    std::optional<std::string> text;    ///< of `prompt` or of the first of `turns`
    std::vector<ChatMessage> messages;  ///< of `messages`
    std::string variables = {};         ///< of `tools`, `documents` and `chat_template_kwargs`: see Chat
};

/// At most `limit` rows (0: all) of a file, or of standard input for "-". Blank lines are skipped. Throws Error with
/// file and line number for what is not such a row, and for a file without any.
[[nodiscard]] std::vector<PromptRow> read_prompts(const std::string& path, std::int64_t limit);

/// The same from a stream; `name` stands for it in errors.
[[nodiscard]] std::vector<PromptRow> read_prompts(std::istream& in, const std::string& name, std::int64_t limit);

/// All of standard input. Throws Error where reading fails.
[[nodiscard]] std::string read_standard_input();

}  // namespace outrider::cli
