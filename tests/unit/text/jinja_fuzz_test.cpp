// Mutated chat templates and conversations: each gives a text or an Error within its limits. The number of inputs: see
// ../../mutation.hpp.
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/text/chat_template.hpp>
#include <outrider/text/tokenizer.hpp>

#include "../../mutation.hpp"
#include "../temporary_folder.hpp"
#include "text/jinja/from_json.hpp"
#include "text/jinja/template.hpp"
#include "tiny_vocabulary.hpp"

using namespace outrider;

namespace {

const std::vector<std::string> kWords = {"{{",
                                         "}}",
                                         "{%",
                                         "%}",
                                         "{%-",
                                         "-%}",
                                         "{#",
                                         "#}",
                                         "{% endif %}",
                                         "{% endfor %}",
                                         "{% else %}",
                                         "{% set x = messages %}",
                                         "{% for m in messages %}",
                                         "{% macro m(a, b=1) %}",
                                         "{% endmacro %}",
                                         "{% raw %}",
                                         "{% call m(1) %}",
                                         "{% endcall %}",
                                         "{% filter upper %}",
                                         "{% break %}",
                                         "namespace(a=1)",
                                         "loop",
                                         "caller()",
                                         "range(99)",
                                         "m()",
                                         "messages",
                                         "tools",
                                         " | tojson",
                                         " | tojson(indent=4)",
                                         " | map('upper')",
                                         " | list",
                                         " | join(',')",
                                         " | sort",
                                         " | length",
                                         " | string",
                                         " | replace('a', 'bb')",
                                         " | indent",
                                         " | safe",
                                         " | int",
                                         " | last",
                                         " | dictsort",
                                         " | unique",
                                         " | round(-2)",
                                         ".items()",
                                         ".split()",
                                         ".split('a', 1)",
                                         ".rsplit()",
                                         ".strip('x')",
                                         ".format(1, messages)",
                                         ".title()",
                                         ".center(9)",
                                         ".zfill(9)",
                                         ".splitlines()",
                                         "[::-1]",
                                         "[1:]",
                                         "[-1]",
                                         "[0]",
                                         "[:5:2]",
                                         " is defined",
                                         " is string",
                                         " in ",
                                         " not ",
                                         " + ",
                                         " ~ ",
                                         " * 99",
                                         " ** 9",
                                         " // 0",
                                         " % ('a', 1)",
                                         " == ",
                                         " < ",
                                         " if ",
                                         " else ",
                                         "'%5.2f|%s|%r'",
                                         "'{0[a]:>9}{}'",
                                         "-9223372036854775808",
                                         "9223372036854775807",
                                         "1e308",
                                         "0.1",
                                         "none",
                                         "true",
                                         "'\\u00e9'",
                                         "\"\\ud83d\"",
                                         "\xE2\x80\xA8",
                                         "\xFF",
                                         "\xC3",
                                         std::string(4, '\0')};

std::string conversation_json() {
    return R"({"bos_token": "<s>", "eos_token": "</s>", "messages": [
        {"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Is it \u00e9 \u4f60?"},
        {"role": "assistant", "content": "<think>\nhm</think>a", "tool_calls": [{"id": "call00001", "function":
            {"name": "sun", "arguments": {"place": "x", "n": 1.5, "l": [1, null, true]}}}]},
        {"role": "tool", "content": "[]", "tool_call_id": "call00001"}, {"role": "user", "content": "b"}],
        "tools": [{"type": "function", "function": {"name": "sun", "description": "d", "parameters": {"type": "object",
            "properties": {"place": {"type": "string"}, "l": {"type": "array", "items": {"type": "integer"}}},
            "required": ["place"]}}}], "documents": null, "add_generation_prompt": true})";
}

jinja::Variables conversation() {
    const auto json = nlohmann::ordered_json::parse(conversation_json());
    jinja::Meter meter{jinja::Limits{}};
    jinja::Variables variables;
    for (const auto& [name, value] : json.items()) variables.emplace_back(name, jinja::from_json(value, meter));
    return variables;
}

}  // namespace

TEST_CASE("fuzz: chat templates") {
    const jinja::Variables variables = conversation();
    const jinja::Limits limits{.steps = 100'000, .bytes = std::size_t{1} << 22, .depth = 300};
    std::vector<std::filesystem::path> templates;
    for (const auto& file : std::filesystem::directory_iterator(OUTRIDER_SOURCE_DIR "/tests/golden/chat/templates"))
        templates.push_back(file.path());
    std::ranges::sort(templates);
    REQUIRE(templates.size() == 47);
    // OUTRIDER_FUZZ_INPUTS is shared by all, so that a million is a million.
    const std::int64_t share = (test::fuzz_inputs() + std::ssize(templates) - 1) / std::ssize(templates);
    double slowest = 0;
    std::int64_t inputs = 0, texts = 0;
    for (const auto& path : templates) {
        std::ifstream file(path);
        const std::string source{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        INFO(path.filename());
        REQUIRE(source.size() > 50);
        const auto run = [&](const std::string& mutant) {
            const auto begin = std::clock();
            ++inputs;
            const auto text = jinja::Template::parse(mutant).render(
                variables, [](const std::string&) { return std::string("now"); }, limits);
            ++texts;
            slowest = std::max(slowest, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
            if (text.size() > limits.bytes) FAIL("a text of " << text.size() << " bytes");
        };
        for (std::int64_t n = test::fuzz_first(); n < test::fuzz_first() + share; ++n) {
            const test::Mutator mutated(source, n, kWords);
            const auto begin = std::clock();
            try {
                run(mutated.text());
            } catch (const Error&) {
                slowest = std::max(slowest, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
            } catch (const std::exception& other) {
                FAIL("input " << n << ": " << other.what());
            }
        }
    }
    CHECK(slowest < 5);  // sanitizers included
    CHECK(texts > inputs / 20);
    CHECK(inputs - texts > inputs / 5);
    WARN(inputs << " inputs, " << texts << " of them texts; the slowest took " << slowest << " s");
}

TEST_CASE("fuzz: conversations") {
    std::vector<ChatTemplate> templates;
    for (const char* name : {"command_r_tools", "hermes_tools", "llama3_2", "mistral_v7", "qwen3", "smollm3"}) {
        std::ifstream file(OUTRIDER_SOURCE_DIR "/tests/golden/chat/templates/" + std::string(name) + ".jinja");
        const std::string source{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
        templates.push_back(ChatTemplate::parse(source).with_clock([] { return std::time_t{1'741'521'600}; }));
    }
    const test::TemporaryFolder folder;
    const auto tokenizer = Tokenizer::from_json(folder.write("tokenizer.json", test::tiny_json().dump()));
    const std::string json = conversation_json();
    std::size_t next = 0;
    test::fuzz(json, test::kJsonWords, [&](const std::string& mutant) {
        const Chat chat = Chat::from_json(mutant);
        const ChatTemplate& one = templates[next++ % templates.size()];
        const std::string text = one.render(chat.messages, *tokenizer, chat.variables);
        const auto ids = one.encode(chat.messages, *tokenizer, chat.variables);
        if (is_valid_utf8(text) && tokenizer->decode(ids).size() > text.size()) FAIL("more text than there was");
    });
}
