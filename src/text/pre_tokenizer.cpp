#include "pre_tokenizer.hpp"

#include <pcre2.h>

#include <algorithm>
#include <initializer_list>

#include <outrider/core/error.hpp>

namespace outrider::detail {
namespace {

struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

std::string message_of(int error) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof(text));
    return reinterpret_cast<const char*>(text);
}

/// \s and \S spelled by the property they stand for.
std::string with_unicode_spaces(std::string_view expression) {
    std::string result;
    for (std::size_t i = 0; i < expression.size(); ++i) {
        if (expression[i] != '\\' || i + 1 == expression.size()) {
            result.push_back(expression[i]);
            continue;
        }
        const char letter = expression[++i];
        if (letter == 's') result += "\\p{White_Space}";
        else if (letter == 'S') result += "\\P{White_Space}";
        else result.push_back('\\'), result.push_back(letter);
    }
    return result;
}

// Expressions of the models' own tokenizer.json files.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

struct WordPattern::Code {
    std::unique_ptr<pcre2_code, FreeCode> code;
};

WordPattern::WordPattern(std::string_view expression) {
    const std::string source = with_unicode_spaces(expression);
    int error = 0;
    PCRE2_SIZE offset = 0;
    auto code = std::make_shared<Code>();
    code->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
    if (code->code == nullptr) {
        fail("the tokenizer's expression {} cannot be compiled: {}", expression, message_of(error));
    }
    pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, not different
    code_ = std::move(code);
}

std::vector<std::string_view> WordPattern::split(std::span<const std::string_view> texts) const {
    const pcre2_code* code = code_->code.get();
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
    require(match != nullptr, "out of memory for a match");
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    std::vector<std::string_view> words;
    for (const std::string_view text : texts) {
        const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
        std::size_t position = 0;
        while (position < text.size()) {
            const int found = pcre2_match(code, subject, text.size(), position, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY,
                                          match.get(), nullptr);
            if (found == PCRE2_ERROR_NOMATCH) break;
            if (found < 0) fail("the tokenizer's expression gives up on a text: {}", message_of(found));
            require(ends[0] >= position && ends[1] > ends[0], "the tokenizer's expression moves backwards");
            if (ends[0] > position) words.push_back(text.substr(position, ends[0] - position));
            words.push_back(text.substr(ends[0], ends[1] - ends[0]));
            position = ends[1];
        }
        if (position < text.size()) words.push_back(text.substr(position));
    }
    return words;
}

std::vector<std::string_view> PreTokenizer::words(std::string_view text) const {
    std::vector<std::string_view> words;
    if (!text.empty()) words.push_back(text);
    for (const WordPattern& pattern : patterns_) words = pattern.split(words);
    return words;
}

// Names that share a rule are those of llama.cpp's src/llama-vocab.cpp. Its "default" is a guess for files that do not
// say; GPT-2's expression is ours.
PreTokenizer PreTokenizer::by_name(std::string_view name) {
    const auto is = [&](std::initializer_list<std::string_view> names) {
        return std::find(names.begin(), names.end(), name) != names.end();
    };
    PreTokenizer result;
    if (is({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})) {
        result.add(kDigitPattern);
        result.add(kGpt2Pattern);
    } else if (is({"gpt-2", "default", "mpt", "olmo", "jais"})) {
        result.add(kGpt2Pattern);
    } else if (is({"llama-bpe", "llama-v3", "llama3"})) {
        result.add(kLlama3Pattern);
    } else if (is({"qwen2", "stablelm2"})) {
        result.add(kQwen2Pattern);
    } else {
        fail("the pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not known; expected smollm, gpt-2, default, llama-bpe "
             "or qwen2. A Hugging Face folder of the model, with its tokenizer.json, may work", name);
    }
    return result;
}

}  // namespace outrider::detail
