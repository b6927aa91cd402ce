// The text that drafters train on: conversations whose answers the target itself wrote, and raw text that it continued.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/text/chat_template.hpp>

namespace outrider {

/// Prompt and answer as the target saw them.
struct Conversation {
    std::vector<TokenId> tokens;
    std::int64_t answer = 0;  ///< tokens of the prompt: the answer begins here
    std::int64_t row = 0;     ///< line of the file, from 0
    std::size_t text = 0;     ///< which file, where several are joined
    bool greedy = true;       ///< written at temperature 0
};

/// The target's ids of a prompt. Rows of a kind whose function is missing are an error.
struct PromptEncoder {
    std::function<std::vector<TokenId>(std::span<const ChatMessage>)> chat;  ///< LlamaModel::chat
    std::function<std::vector<TokenId>(std::string_view)> raw = {};          ///< LlamaModel::raw
};

struct ConversationOptions {
    bool greedy_only = false;       ///< leave out what was sampled: right for a drafter that serves greedy decoding
    std::int64_t max_tokens = 768;  ///< longer conversations are left out
    std::int64_t limit = 0;         ///< take that many conversations only; 0: all
};

/// Reads JSON lines as `distill` writes them: `messages` (the last one is the answer), or `prompt` where a raw text was
/// continued, `prompt_tokens`, `completion_ids`, `temperature`. Each row says by itself which it is, so both may be
/// trained on together. The prompt is encoded anew and must have prompt_tokens tokens. The order is that of a hash of
/// the row, greedy ones first, so that any first part is a fair sample. Throws Error that names the line.
[[nodiscard]] OUTRIDER_API std::vector<Conversation> read_conversations(const std::filesystem::path& path,
                                                                        const PromptEncoder& encode,
                                                                        const ConversationOptions& options = {});

/// Several files as one set, in the same order by row: each file's own order stays, so that what was computed for the
/// files alone serves the set as well (see FeatureStore). Throws Error for a file that is given twice.
[[nodiscard]] OUTRIDER_API std::vector<Conversation> read_conversations(std::span<const std::filesystem::path> paths,
                                                                        const PromptEncoder& encode,
                                                                        const ConversationOptions& options = {});

/// The `count` tokens that occur in most of the answers, ascending. A text that repeats itself counts a token once;
/// ties go to the token that occurs more often, then to the smaller id. `count` 0: as many as make up 95 % of the
/// answers' tokens, so that text and target decide.
[[nodiscard]] OUTRIDER_API std::vector<TokenId> frequent_tokens(std::span<const Conversation> conversations,
                                                                std::int64_t count);

/// Tells sets of conversations apart: a hash of all their tokens in order; the second takes those of one text only.
[[nodiscard]] OUTRIDER_API std::uint64_t hash_of(std::span<const Conversation> conversations);
[[nodiscard]] OUTRIDER_API std::uint64_t hash_of(std::span<const Conversation> conversations, std::size_t text);

}  // namespace outrider
