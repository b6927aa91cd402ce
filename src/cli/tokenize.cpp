// outrider tokenize: JSON strings on standard input, one a line, to ids and the text that they decode to.
#include <nlohmann/json.hpp>

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include <outrider/core/error.hpp>
#include <outrider/core/utf8_stream.hpp>
#include "formats/gguf.hpp"
#include <outrider/text/tokenizer.hpp>

#include "arguments.hpp"

namespace outrider::cli {
namespace {

/// The tokenizer alone: no weights are read.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& path) {
    if (std::filesystem::is_directory(path)) return Tokenizer::from_folder(path);
    return Tokenizer::from_gguf(GgufFile::open(path));
}

}  // namespace

int run(const TokenizeArguments& arguments) {
    const auto tokenizer = load_tokenizer(arguments.model);
    std::ios::sync_with_stdio(false);
    std::string line;
    for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
        std::string text;
        try {
            text = nlohmann::json::parse(line).get<std::string>();
        } catch (const nlohmann::json::exception& error) {
            fail("standard input, line {}: not a JSON string ({})", number, error.what());
        }
        const auto ids = tokenizer->encode(text, SpecialText::parse);
        std::string back;
        for (const TokenId id : ids) back += tokenizer->piece(id);  // special tokens by name, so that nothing is lost
        std::cout << nlohmann::ordered_json{{"ids", ids}, {"text", to_valid_utf8(back)}}.dump() << '\n';
    }
    std::cout.flush();
    require(std::cout.good(), "standard output: writing failed");
    return 0;
}

}  // namespace outrider::cli
