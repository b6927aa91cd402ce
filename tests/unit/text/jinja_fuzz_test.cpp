// Mutated chat templates: each gives a text or an Error within its limits. The number of inputs: see
// ../../mutation.hpp.
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../../mutation.hpp"
#include "text/jinja/from_json.hpp"
#include "text/jinja/template.hpp"

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

jinja::Variables conversation() {
    const auto json = nlohmann::ordered_json::parse(R"({"bos_token": "<s>", "eos_token": "</s>", "messages": [
        {"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Is it \u00e9 \u4f60?"},
        {"role": "assistant", "content": "<think>\nhm</think>a", "tool_calls": [{"id": "call00001", "function":
            {"name": "sun", "arguments": {"place": "x", "n": 1.5, "l": [1, null, true]}}}]},
        {"role": "tool", "content": "[]", "tool_call_id": "call00001"}, {"role": "user", "content": "b"}],
        "tools": [{"type": "function", "function": {"name": "sun", "description": "d", "parameters": {"type": "object",
            "properties": {"place": {"type": "string"}, "l": {"type": "array", "items": {"type": "integer"}}},
            "required": ["place"]}}}], "documents": null, "add_generation_prompt": true})");
    jinja::Meter meter{jinja::Limits{}};
    jinja::Variables variables;
    for (const auto& [name, value] : json.items()) variables.emplace_back(name, jinja::from_json(value, meter));
    return variables;
}

}  // namespace

TEST_CASE("fuzz: chat templates") {
    const jinja::Variables variables = conversation();
    const jinja::Limits limits{.steps = 100'000, .bytes = std::size_t{1} << 22, .depth = 300};
    for (const char* name :
         {"call_filter_blocks", "command_r_tools", "glm4", "harmony", "hermes_tools", "llama3_2", "qwen3", "smollm3"}) {
        DYNAMIC_SECTION(name) {
            std::ifstream file(OUTRIDER_SOURCE_DIR "/tests/golden/chat/templates/" + std::string(name) + ".jinja");
            const std::string source{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
            REQUIRE(source.size() > 100);
            const auto run = [&](const std::string& mutant) {
                const auto text = jinja::Template::parse(mutant).render(
                    variables, [](const std::string&) { return std::string("now"); }, limits);
                if (text.size() > limits.bytes) FAIL("a text of " << text.size() << " bytes");
            };
            test::fuzz(source, kWords, run, test::fuzz_inputs() / 8);
        }
    }
}
