// outrider tokenize: JSON strings on standard input, one a line, to ids and the text that they decode to.
#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include <outrider/core/error.hpp>
#include <outrider/text/tokenizer.hpp>

#include "arguments.hpp"
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

}  // namespace

int run(const TokenizeArguments& arguments) {
    const auto tokenizer = load_tokenizer(arguments.model);
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
        print(to_text({{"ids", ids}, {"text", back}}) + '\n');
    }
    require(std::ferror(stdin) == 0, "standard input: reading failed ({})", std::strerror(errno));
    return 0;
}

}  // namespace outrider::cli
