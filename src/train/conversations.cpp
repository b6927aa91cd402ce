#include <outrider/train/train.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <tuple>
#include <unordered_map>
#include <utility>

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

/// Ids of what stands before the answer, or before what continues a raw text.
std::vector<TokenId> encode_prompt(const json& row, const PromptEncoder& encode) {
    const bool raw = row.contains("prompt");
    require(!raw || !row.contains("messages"), ErrorKind::damaged_file,
            "there are both `messages` and `prompt`; expected a conversation or a raw text");
    require(raw ? encode.raw != nullptr : encode.chat != nullptr,
            "this is a {}, and the target has no encoder for such prompts", raw ? "raw text" : "conversation");
    return raw ? encode.raw(row.at("prompt").get<std::string>()) : encode.chat(messages_before_answer(row));
}

/// Throws json::exception or Error for a row that is not as described.
Conversation read_row(const json& row, const PromptEncoder& encode) {
    Conversation result;
    result.tokens = encode_prompt(row, encode);
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

/// Where a token occurs in answers.
struct TokenUse {
    TokenId token = 0;
    std::int64_t texts = 0, times = 0;
    std::size_t last = 0;  ///< text that it was seen in, from 1
};

/// Of all tokens of the answers, those of most texts first.
std::vector<TokenUse> uses_of(std::span<const Conversation> conversations) {
    std::unordered_map<TokenId, TokenUse> seen;
    for (std::size_t text = 0; text < conversations.size(); ++text) {
        const std::vector<TokenId>& tokens = conversations[text].tokens;
        for (auto i = static_cast<std::size_t>(conversations[text].answer); i < tokens.size(); ++i) {
            TokenUse& use = seen[tokens[i]];
            use.token = tokens[i], ++use.times;
            if (std::exchange(use.last, text + 1) != text + 1) ++use.texts;
        }
    }
    std::vector<TokenUse> uses;
    for (const auto& [token, use] : seen) uses.push_back(use);
    std::ranges::sort(uses, [](const TokenUse& a, const TokenUse& b) {
        return std::tuple(-a.texts, -a.times, a.token) < std::tuple(-b.texts, -b.times, b.token);
    });
    return uses;
}

/// How many of the first make up most of the text; see frequent_tokens.
std::int64_t most_of(std::span<const TokenUse> order) {
    constexpr double kCovered = 0.95;
    const std::int64_t all = std::accumulate(order.begin(), order.end(), std::int64_t{0},
                                             [](std::int64_t sum, const TokenUse& use) { return sum + use.times; });
    std::int64_t count = 0, covered = 0;
    for (const TokenUse& use : order) {
        if (static_cast<double>(covered) >= kCovered * static_cast<double>(all)) break;
        ++count, covered += use.times;
    }
    return count;
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
    std::vector<TokenUse> order = uses_of(conversations);
    if (count == 0) count = most_of(order);
    if (std::ssize(order) > count) order.resize(static_cast<std::size_t>(count));
    std::vector<TokenId> tokens;
    for (const TokenUse& use : order) tokens.push_back(use.token);
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
