#include "gguf_rules.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <outrider/core/error.hpp>

// Names that share a rule, and their flags, are those of llama.cpp (src/llama-vocab.cpp, llama_vocab::impl::load). The
// expressions are those of the models' own tokenizer.json files, which llama.cpp rewrites for an engine without classes
// of letters. Its "default" is a guess for files that do not say; GPT-2's expression is ours.
namespace outrider::detail {
namespace {

struct Step {
    std::string expression;
    CutBehavior behavior = CutBehavior::isolated;
    bool in_bytes = false;
};

struct Row {
    std::vector<std::string_view> names;
    std::vector<Step> steps;
    bool whole_words = false, adds_bos = false, characters = false;
};

constexpr std::string_view kContraction = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
constexpr std::string_view kLetters = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
constexpr std::string_view kSigns = R"( ?[^\s\p{L}\p{N}]+[\r\n]*)";
constexpr std::string_view kSpaces = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kHan = R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";

/// tiktoken's cl100k and what was made of it: `numbers` are the words of digits.
std::string cl100k(std::string_view numbers) {
    return fmt::format("{}|{}|{}|{}|{}", kContraction, kLetters, numbers, kSigns, kSpaces);
}

/// tiktoken's o200k: words end where a capital follows small letters. `after`: what may follow a word's letters.
std::string o200k(std::string_view after, std::string_view numbers) {
    constexpr std::string_view kUpper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])", kLower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
    constexpr std::string_view kFirst = R"([^\r\n\p{L}\p{N}]?)";
    return fmt::format(R"({0}{1}*{2}+{3}|{0}{1}+{2}*{3}|{4}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{5})", kFirst, kUpper,
                       kLower, after, numbers, kSpaces);
}

/// Letters of the scripts that DeepSeek LLM cuts by.
constexpr const char* kDeepSeekLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-)"
    R"(\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-)"
    R"(\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-)"
    R"(\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77})"
    R"(\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-)"
    R"(\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE})"
    R"(\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-)"
    R"(\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149})"
    R"(\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3})"
    R"(\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-)"
    R"(\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F})"
    R"(\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943}]+)";
constexpr const char* kDeepSeekMarks =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
constexpr const char* kDeepSeekWords =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)";
constexpr const char* kBloomWords = R"( ?[^(\s|.,!?…。，、।۔،)]+)";

std::vector<Step> deepseek_v3() {
    return {{R"(\p{N}{1,3})"}, {R"([一-龥぀-ゟ゠-ヿ]+)"}, {kDeepSeekWords + std::string(kSpaces)}};
}

/// cl100k with runs of spaces in powers of two.
std::string jais2() {
    return fmt::format("{}|{}|{}|{}|{}", kContraction, kLetters, R"(\p{N}{1,3})", kSigns,
                       R"(\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|)"
                       R"(\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})");
}

std::string qwen35() {
    return fmt::format(R"({}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{})",
                       kContraction, kSpaces);
}

std::vector<Row> make_rows() {
    const Step gpt2{std::string(kGpt2Pattern)}, digit{std::string(kDigitPattern)};
    const Step llama3{cl100k(R"(\p{N}{1,3})")}, qwen2{cl100k(R"(\p{N})")};
    const Step punctuation{R"([\p{P}$+<=>^`|~])", CutBehavior::contiguous};
    const Step line_end{R"([\r\n])"}, han{std::string(kHan)};
    return {
        {{"gpt-2", "default", "mpt", "olmo", "jais", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "trillion",
          "granite-docling"},
         {gpt2}},
        {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"}, {digit, gpt2}},
        {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
         {llama3},
         true,
         true},
        {{"smaug-bpe", "dbrx", "chatglm-bpe"}, {llama3}},
        {{"glm4", "glm5"}, {llama3}, true},
        {{"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2"},
         {qwen2}},
        {{"qwen35"}, {{qwen35()}}},
        {{"tekken"}, {{o200k("", R"(\p{N})")}}, true, true},
        {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
         {{o200k(fmt::format("{}?", kContraction), R"(\p{N}{1,3})")}}},
        {{"falcon"}, {punctuation, gpt2, {R"(\p{N}+)", {}, true}, {"[0-9][0-9][0-9]", {}, true}}},
        {{"deepseek-llm"}, {line_end, {kDeepSeekLetters}, {kDeepSeekMarks}, {R"(\s+$)"}, han, digit}},
        {{"deepseek-coder"}, {line_end, {R"(\s?\p{L}+)"}, {R"(\s?\p{P}+)"}, han, digit}},
        {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, deepseek_v3()},
        {{"bloom", "poro-chat", "gpt3-finnish"}, {{kBloomWords}}},
        {{"viking"}, {{kBloomWords}, digit}},
        {{"seed-coder"},
         {{fmt::format(R"({}|{}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{})", kContraction, kLetters, kSpaces)}}},
        {{"jais-2"}, {{jais2()}}},
        {{"minicpm5"}, {{R"(\p{N}{1,3})"}, {cl100k(R"(\p{N}+)")}}, true},
        {{"gemma4"}, {{R"([^\n]+|\n+)"}}, false, true, true},
    };
}

const std::vector<Row>& rows() {
    static const std::vector<Row> table = make_rows();
    return table;
}

}  // namespace

GgufRule gguf_rule(std::string_view name) {
    for (const Row& row : rows()) {
        if (std::ranges::find(row.names, name) == row.names.end()) continue;
        GgufRule rule{
            .words = {}, .whole_words = row.whole_words, .adds_bos = row.adds_bos, .characters = row.characters};
        for (const Step& step : row.steps)
            rule.words.add({WordPattern(step.expression), step.behavior, false, step.in_bytes});
        return rule;
    }
    fail(ErrorKind::damaged_file,
         "the pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not known; expected one of {}. A Hugging Face folder of the "
         "model, with its tokenizer.json, may work",
         name, fmt::format("{}", fmt::join(gguf_rule_names(), ", ")));
}

std::vector<std::string> gguf_rule_names() {
    std::vector<std::string> names;
    for (const Row& row : rows()) names.insert(names.end(), row.names.begin(), row.names.end());
    return names;
}

}  // namespace outrider::detail
