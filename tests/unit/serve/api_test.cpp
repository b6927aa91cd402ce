// Requests and answers of the API as values.
#include <catch2/catch_all.hpp>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "serve/api_error.hpp"
#include "serve/api_request.hpp"
#include "serve/api_response.hpp"
#include "serve/server.hpp"

using namespace outrider;
using namespace outrider::serve;
using Catch::Matchers::ContainsSubstring;

namespace {

ApiRequest chat(const std::string& more, const RequestLimits& limits = {}) {
    return parse_request(Endpoint::chat, R"({"messages": [{"role": "user", "content": "hi"}])" + more + "}", limits);
}

/// What is said of a body, and of which field.
std::string refusal(Endpoint endpoint, const std::string& body) {
    try {
        (void)parse_request(endpoint, body, {});
    } catch (const ApiError& error) {
        CHECK(error.status() == 400);
        const auto param = error.body()["error"]["param"];
        return (param.is_null() ? std::string() : param.get<std::string>()) + "|" + error.what();
    }
    return "accepted";
}

std::string chat_refusal(const std::string& more) {
    return refusal(Endpoint::chat, R"({"messages": [{"role": "user", "content": "hi"}])" + more + "}");
}

}  // namespace

TEST_CASE("a request's fields become options", "[serve]") {
    const ApiRequest request = chat(
        R"(, "model": "m", "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1,
           "max_tokens": 12, "seed": -1, "stop": ["a", "b"], "n": 3, "stream": true, "user": "somebody",
           "stream_options": {"include_usage": true}, "logprobs": false, "response_format": {"type": "text"},
           "presence_penalty": 0, "tools": [], "chat_template_kwargs": {"enable_thinking": false})");
    CHECK(request.model == "m");
    CHECK(request.generation.temperature == 0.7);
    CHECK(request.generation.top_p == 0.9);
    CHECK(request.generation.top_k == 40);
    CHECK(request.generation.min_p == 0.05);
    CHECK(request.generation.repetition_penalty == 1.1);
    CHECK(request.generation.max_tokens == 12);
    CHECK(request.generation.seed == ~std::uint64_t{0});
    CHECK(request.generation.stop == std::vector<std::string>{"a", "b"});
    CHECK(request.n == 3);
    CHECK(request.stream);
    CHECK(request.stream_usage);
    REQUIRE(request.chat.messages.size() == 1);
    CHECK(request.chat.messages[0].content == "hi");
    CHECK(request.chat.variables == R"({"enable_thinking":false})");
}

TEST_CASE("what a request leaves out is as the server has it", "[serve]") {
    const RequestLimits limits{.defaults = {.max_tokens = 7, .temperature = 0.5, .stop = {"x"}}};
    const ApiRequest request = chat(R"(, "temperature": null)", limits);
    CHECK(request.generation.max_tokens == 7);
    CHECK(request.generation.temperature == 0.5);
    CHECK(request.generation.stop == std::vector<std::string>{"x"});
    CHECK_FALSE(request.generation.seed);
    CHECK(request.n == 1);
    CHECK_FALSE(request.stream);
    CHECK(chat(R"(, "max_completion_tokens": 9)", limits).generation.max_tokens == 9);
}

TEST_CASE("prompts are texts, ids, or lists of these", "[serve]") {
    using Ids = std::vector<TokenId>;
    const auto prompts = [](const std::string& prompt) {
        return parse_request(Endpoint::text, R"({"prompt": )" + prompt + "}", {}).prompts;
    };
    CHECK(std::get<std::string>(prompts(R"("one")").at(0)) == "one");
    CHECK(std::get<Ids>(prompts("[1, 2]").at(0)) == Ids{1, 2});
    CHECK(std::get<std::string>(prompts(R"(["a", "b"])").at(1)) == "b");
    CHECK(std::get<Ids>(prompts("[[3], [4, 5]]").at(1)) == Ids{4, 5});
    for (const char* bad : {"null", "7", "[]", "[[]]", "[1, \"a\"]", "[-1]", "[1.5]", "[99999999999]", "{}"})
        CHECK_THAT(refusal(Endpoint::text, std::string(R"({"prompt": )") + bad + "}"), ContainsSubstring("prompt|"));
}

TEST_CASE("parts of text are one text, and parts of anything else are refused", "[serve]") {
    const auto with_content = [](const std::string& content) {
        return R"({"messages": [{"role": "user", "content": )" + content + "}]}";
    };
    const ApiRequest request = parse_request(
        Endpoint::chat, with_content(R"([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])"), {});
    CHECK(request.chat.messages[0].content == "ab");
    CHECK_THAT(refusal(Endpoint::chat, with_content(R"([{"type": "image_url", "image_url": {"url": "x"}}])")),
               ContainsSubstring("messages|"));
}

TEST_CASE("what is wrong is said with the name of its field", "[serve]") {
    const std::vector<std::pair<std::string, std::string>> cases{
        {R"(, "temperature": -1)", "temperature|"},
        {R"(, "temperature": "warm")", "temperature|"},
        {R"(, "top_p": 0)", "top_p|"},
        {R"(, "top_k": 1.5)", "top_k|"},
        {R"(, "max_tokens": 0)", "max_tokens|"},
        {R"(, "max_tokens": 99999999999999999999)", "max_tokens|"},
        {R"(, "max_tokens": 18446744073709551615)", "max_tokens|"},
        {R"(, "n": 17)", "n|"},
        {R"(, "seed": 1.5)", "seed|"},
        {R"(, "stop": [1])", "stop|"},
        {R"(, "stop": "")", "stop|"},
        {R"(, "stream": 1)", "stream|"},
        {R"(, "logprobs": true)", "logprobs|"},
        {R"(, "top_logprobs": 3)", "top_logprobs|"},
        {R"(, "response_format": {"type": "json_schema"})", "response_format|"},
        {R"(, "tools": [{"type": "function"}])", "tools|"},
        {R"(, "logit_bias": {"1": 2})", "logit_bias|"},
        {R"(, "frequency_penalty": 0.5)", "frequency_penalty|"},
        {R"(, "temprature": 1)", "temprature|"},
        {R"(, "stream_options": {"usage": true})", "usage|"},
    };
    for (const auto& [more, expected] : cases) {
        CAPTURE(more);
        CHECK_THAT(chat_refusal(more), ContainsSubstring(expected));
    }
    CHECK_THAT(refusal(Endpoint::chat, "{}"), ContainsSubstring("messages|"));
    CHECK_THAT(refusal(Endpoint::chat, R"({"messages": [7]})"), ContainsSubstring("messages|"));
    for (const char* bad : {"", "{", "[]", "7", "\"\xff\"", "{\"a\": \"\xff\"}"})
        CHECK_THAT(refusal(Endpoint::chat, bad), ContainsSubstring("JSON"));
    CHECK_THAT(refusal(Endpoint::chat, std::string(100'000, '[')), ContainsSubstring("nested"));
    CHECK_THAT(refusal(Endpoint::chat, "{\"messages\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}"),
               ContainsSubstring("nested"));
}

TEST_CASE("usage tells what drafts brought, and counts a prompt once", "[serve]") {
    GenerationResult one;
    one.text = "a\xc3\xa4";
    one.finish = FinishReason::length;
    one.stats.prompt_tokens = 10, one.stats.tokens = 6, one.stats.drafted = 8, one.stats.accepted = 3;
    one.stats.rounds = 3;
    const AnswerHead head = answer_head(Endpoint::chat, "m", 1);
    const auto answer = whole_answer(head, {one, one}, 2);
    CHECK(answer["object"] == "chat.completion");
    CHECK(answer["choices"][1]["message"]["content"] == one.text);
    CHECK(answer["choices"][1]["index"] == 1);
    CHECK(answer["choices"][1]["finish_reason"] == "length");
    CHECK(answer["usage"]["prompt_tokens"] == 10);
    CHECK(answer["usage"]["completion_tokens"] == 12);
    CHECK(answer["usage"]["total_tokens"] == 22);
    CHECK(answer["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] == 6);
    CHECK(answer["usage"]["completion_tokens_details"]["rejected_prediction_tokens"] == 10);
    CHECK(summed({one, one}, 1).prompt_tokens == 20);
    CHECK(event(text_piece(head, 1, "x")).starts_with("data: {\"id\":\"chatcmpl-"));
    CHECK(event(text_piece(head, 1, "x")).ends_with("\n\n"));
}

TEST_CASE("secrets are compared whole", "[serve]") {
    CHECK(same_secret("abc", "abc"));
    CHECK(same_secret("", ""));
    for (const char* other : {"", "ab", "abd", "xbc", "abca", "abcabc"}) CHECK_FALSE(same_secret(other, "abc"));
    CHECK_FALSE(same_secret("a", ""));
}
