// outrider tokenize: JSON strings on standard input, one a line, to ids and the text that they decode to; with --chat,
// conversations to the text and the ids that the chat template makes of them.
#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/formats/detail/json_text.hpp>
#include <outrider/text/chat_template.hpp>
#include <outrider/text/tokenizer.hpp>

#include "arguments.hpp"
#include "engine.hpp"
#include "formats/gguf.hpp"
#include "json_output.hpp"
#include "output.hpp"

namespace outrider::cli {
namespace {

/// The tokenizer alone: no weights are read.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path) {
    if (std::filesystem::is_directory(path)) return Tokenizer::from_folder(path);
    return Tokenizer::from_gguf(GgufFile::open(path));
}

ChatTemplate load_template(const TokenizeArguments& arguments, const Tokenizer& tokenizer) {
    if (!arguments.template_file.empty()) return ChatTemplate::parse(read_template(arguments.template_file));
    return arguments.chat_template.empty() ? ChatTemplate::of(tokenizer)
                                           : ChatTemplate::by_name(arguments.chat_template);
}

nlohmann::ordered_json string_line(const std::string& line, const Tokenizer& tokenizer) {
    std::string text;
    try {
        text = nlohmann::json::parse(line).get<std::string>();
    } catch (const nlohmann::json::exception& error) {
        fail("not a JSON string ({})", outrider::detail::json_reason(error));
    }
    const auto ids = tokenizer.encode(text, SpecialText::parse);
    std::string back;
    for (const TokenId id : ids) back += tokenizer.piece(id);  // special tokens by name, so that nothing is lost
    return {{"ids", ids}, {"text", back}};
}

nlohmann::ordered_json chat_line(const std::string& line, const Tokenizer& tokenizer, const ChatTemplate& chat) {
    const Chat conversation = Chat::from_json(line);
    return {{"ids", chat.encode(conversation.messages, tokenizer, conversation.variables)},
            {"text", chat.render(conversation.messages, tokenizer, conversation.variables)}};
}

}  // namespace

int run(const TokenizeArguments& arguments) {
    const auto tokenizer = load_tokenizer(arguments.model);
    std::optional<ChatTemplate> chat;
    if (arguments.chat) chat = load_template(arguments, *tokenizer);
    std::string line;
    for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
        nlohmann::ordered_json shown;
        try {
            shown = chat ? chat_line(line, *tokenizer, *chat) : string_line(line, *tokenizer);
        } catch (const Error& error) {
            fail("standard input, line {}: {}", number, error.what());
        }
        print(to_text(std::move(shown)) + '\n');
    }
    require(std::ferror(stdin) == 0, "standard input: reading failed ({})", std::strerror(errno));
    return 0;
}

}  // namespace outrider::cli
