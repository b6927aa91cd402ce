#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <outrider/core/error.hpp>

#include <prompts_file.hpp>

#include <sstream>

using namespace outrider::cli;
using Catch::Matchers::ContainsSubstring;

namespace {

std::vector<PromptRow> read(const std::string& text, std::int64_t limit = 0) {
    std::istringstream in(text);
    return read_prompts(in, "some.jsonl", limit);
}

}  // namespace

TEST_CASE("prompt, first turn, messages; ids as given or line numbers") {
    const auto rows = read(
        "{\"id\": \"a\", \"prompt\": \"one\"}\n"
        "\n"
        "{\"id\": 17, \"turns\": [\"two\", \"later\"], \"extra\": null}\r\n"
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"u\"}]}");
    REQUIRE(rows.size() == 3);
    CHECK((rows[0].id == "a" && rows[0].text == "one"));
    CHECK((rows[1].id == "17" && rows[1].text == "two"));
    CHECK((rows[2].id == "4" && !rows[2].text));
    REQUIRE(rows[2].messages.size() == 2);
    CHECK((rows[2].messages[1].role == "user" && rows[2].messages[1].content == "u"));
    CHECK(read("{\"prompt\": \"x\"}\n{\"prompt\": \"y\"}\n", 1).size() == 1);
}

TEST_CASE("a row says whether it has a name, and which draw of its prompt it is") {
    const auto rows = read(
        "{\"prompt\": \"x\"}\n{\"id\": \"1\", \"prompt\": \"x\", \"sample\": 7}\n{\"id\": null, \"prompt\": \"x\"}\n"
        "{\"id\": [1, \"b\"], \"prompt\": \"x\", \"sample\": 18446744073709551615}");
    REQUIRE(rows.size() == 4);
    CHECK((!rows[0].named && rows[0].sample == 0));
    CHECK((rows[1].named && rows[1].sample == 7));
    CHECK((!rows[2].named && rows[2].id == "3"));
    CHECK((rows[3].named && rows[3].id == "[1,\"b\"]" && rows[3].sample == 18446744073709551615ULL));
}

TEST_CASE("what a chat template reads beside messages") {
    const auto rows = read(
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"x\", \"name\": \"f\"}], \"tools\": [{\"b\": 1, \"a\": "
        "2}], "
        "\"mood\": 3, \"chat_template_kwargs\": {\"thinking\": true}}");
    CHECK(rows[0].messages[0].more == "{\"name\":\"f\"}");
    CHECK(rows[0].variables == "{\"tools\":[{\"b\":1,\"a\":2}],\"thinking\":true}");
    CHECK(read("{\"prompt\": \"x\", \"tools\": []}")[0].variables.empty());
}

TEST_CASE("errors name file and line, and say what is wrong") {
    const auto says = [](const std::string& text, const std::string& words) {
        CAPTURE(text);
        CHECK_THROWS_WITH(read(text), ContainsSubstring(words));
        CHECK_THROWS_AS(read(text), outrider::Error);
    };
    says("{\"prompt\": \"x\"}\n{\"prompt\": ", "some.jsonl:2: not JSON");
    says("[1]\n", "some.jsonl:1: array where a JSON object");
    says("{\"text\": \"x\"}", "no `prompt`, `turns` or `messages`");
    says("{\"prompt\": 3}", "`prompt` is number");
    says("{\"turns\": []}", "`turns` is not a list with at least one");
    says("{\"turns\": [3]}", "`turns` is number");
    says("{\"messages\": []}", "`messages`");
    says("{\"messages\": [{\"role\": \"user\"}]}", "no `content`");
    for (const char* sample : {"-1", "1.5", "\"2\"", "null", "[0]", "18446744073709551616"})
        says(std::string("{\"prompt\": \"x\", \"sample\": ") + sample + "}", "some.jsonl:1: `sample`");
    says("\n\n", "no prompts");
    says("\x7F\x45\x4C\x46", "not JSON");
    CHECK_THROWS_WITH(read_prompts("/nowhere/at/all.jsonl", 0), ContainsSubstring("/nowhere/at/all.jsonl"));
    CHECK_THROWS_WITH(read_prompts("/", 0), ContainsSubstring("is a folder"));
}
