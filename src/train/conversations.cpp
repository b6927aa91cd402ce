#include <outrider/train/train.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <unordered_map>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>

namespace outrider {

namespace {

using json = nlohmann::ordered_json;  // templates may write further keys of messages as they came

std::vector<ChatMessage> messages_before_answer(const json& row) {
    std::vector<ChatMessage> messages;
    for (const json& message : row.at("messages")) messages.push_back(ChatMessage::from_json(message.dump()));
    if (!messages.empty() && messages.back().role == "assistant") messages.pop_back();
    require(!messages.empty(), ErrorKind::damaged_file, "there is no message before the answer");
    return messages;
}

/// Throws json::exception or Error for a row that is not as described.
Conversation read_row(const json& row, const PromptEncoder& encode) {
    Conversation result;
    result.tokens = encode(messages_before_answer(row));
    result.answer = static_cast<std::int64_t>(result.tokens.size());
    if (row.contains("prompt_tokens"))
        require(row.at("prompt_tokens").get<std::int64_t>() == result.answer, ErrorKind::damaged_file,
                "the prompt has {} tokens, this target encodes it to {}; was the text made by another model or chat "
                "template?",
                row.at("prompt_tokens").get<std::int64_t>(), result.answer);
    for (const json& id : row.at("completion_ids")) result.tokens.push_back(id.get<TokenId>());
    result.greedy = row.value("temperature", 0.0) == 0.0;
    return result;
}

std::vector<Conversation> read_file(const std::filesystem::path& path, std::size_t text, const PromptEncoder& encode,
                                    const ConversationOptions& options) {
    std::ifstream file(path);
    require(file.good(), ErrorKind::damaged_file,
            "{}: cannot be read; expected JSON lines as `outrider distill` writes them", path.string());
    std::vector<Conversation> all;
    std::string line;
    for (std::int64_t number = 0; std::getline(file, line); ++number) {
        if (line.empty()) continue;
        try {
            detail::check_json_depth(line, "the line");
            const json row = json::parse(line);
            if (options.greedy_only && row.value("temperature", 0.0) > 0.0) continue;
            Conversation conversation = read_row(row, encode);
            conversation.row = number, conversation.text = text;
            const auto length = static_cast<std::int64_t>(conversation.tokens.size());
            if (length <= options.max_tokens && length >= conversation.answer + 2)
                all.push_back(std::move(conversation));
        } catch (const std::exception& error) {
            fail(ErrorKind::damaged_file, "{}, line {}: {}", path.string(), number + 1, error.what());
        }
    }
    require(!all.empty(),
            "{}: no conversation to train on (an answer has at least 2 tokens, a conversation at most {})",
            path.string(), options.max_tokens);
    return all;
}

std::uint64_t hash_more(std::uint64_t hash, const Conversation& conversation) {
    hash = mix64(hash ^ static_cast<std::uint64_t>(conversation.answer));
    for (const TokenId token : conversation.tokens) hash = mix64(hash ^ static_cast<std::uint64_t>(token));
    return hash;
}

}  // namespace

std::vector<Conversation> read_conversations(const std::filesystem::path& path, const PromptEncoder& encode,
                                             const ConversationOptions& options) {
    return read_conversations(std::span(&path, 1), encode, options);
}

std::vector<Conversation> read_conversations(std::span<const std::filesystem::path> paths, const PromptEncoder& encode,
                                             const ConversationOptions& options) {
    require(!paths.empty(), "train: no text given");
    std::vector<Conversation> all;
    for (std::size_t text = 0; text < paths.size(); ++text) {
        for (std::size_t other = 0; other < text; ++other)
            require(!std::filesystem::exists(paths[text]) || !std::filesystem::equivalent(paths[text], paths[other]),
                    "train: {} is given twice", paths[text].string());
        std::vector<Conversation> more = read_file(paths[text], text, encode, options);
        std::move(more.begin(), more.end(), std::back_inserter(all));
    }
    std::sort(all.begin(), all.end(), [](const Conversation& a, const Conversation& b) {
        if (a.greedy != b.greedy) return a.greedy;
        if (a.row != b.row) return mix64(static_cast<std::uint64_t>(a.row)) < mix64(static_cast<std::uint64_t>(b.row));
        return a.text < b.text;
    });
    if (options.limit > 0 && options.limit < static_cast<std::int64_t>(all.size()))
        all.resize(static_cast<std::size_t>(options.limit));
    return all;
}

std::vector<TokenId> frequent_tokens(std::span<const Conversation> conversations, std::int64_t count) {
    std::unordered_map<TokenId, std::int64_t> seen;
    for (const Conversation& conversation : conversations)
        for (auto i = static_cast<std::size_t>(conversation.answer); i < conversation.tokens.size(); ++i)
            ++seen[conversation.tokens[i]];
    std::vector<std::pair<std::int64_t, TokenId>> order;
    for (const auto& [token, times] : seen) order.emplace_back(-times, token);
    std::sort(order.begin(), order.end());
    if (static_cast<std::int64_t>(order.size()) > count) order.resize(static_cast<std::size_t>(count));
    std::vector<TokenId> tokens;
    for (const auto& [times, token] : order) tokens.push_back(token);
    std::sort(tokens.begin(), tokens.end());
    return tokens;
}

std::uint64_t hash_of(std::span<const Conversation> conversations) {
    std::uint64_t hash = 0;
    for (const Conversation& conversation : conversations) hash = hash_more(hash, conversation);
    return hash;
}

std::uint64_t hash_of(std::span<const Conversation> conversations, std::size_t text) {
    std::uint64_t hash = 0;
    for (const Conversation& conversation : conversations)
        if (conversation.text == text) hash = hash_more(hash, conversation);
    return hash;
}

}  // namespace outrider
