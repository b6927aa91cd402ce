// Requests and answers of the API as values.
#include <catch2/catch_all.hpp>

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/text/grammar.hpp>

#include "../../mutation.hpp"
#include "serve/api_error.hpp"
#include "serve/api_logprobs.hpp"
#include "serve/api_request.hpp"
#include "serve/api_response.hpp"
#include "serve/secret.hpp"

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
           "presence_penalty": 0.5, "frequency_penalty": -2, "logit_bias": {"3": -100, "5": 1.5}, "tools": [],
           "chat_template_kwargs": {"enable_thinking": false})");
    CHECK(request.model == "m");
    CHECK(request.generation.temperature == 0.7);
    CHECK(request.generation.top_p == 0.9);
    CHECK(request.generation.top_k == 40);
    CHECK(request.generation.min_p == 0.05);
    CHECK(request.generation.repetition_penalty == 1.1);
    CHECK(request.generation.max_tokens == 12);
    CHECK(request.generation.seed == ~std::uint64_t{0});
    CHECK(request.generation.stop == std::vector<std::string>{"a", "b"});
    CHECK(request.generation.presence_penalty == 0.5);
    CHECK(request.generation.frequency_penalty == -2);
    CHECK(request.generation.logit_bias == std::vector<std::pair<TokenId, float>>{{3, -100.0F}, {5, 1.5F}});
    CHECK_FALSE(request.generation.logprobs);
    CHECK(request.schema.empty());
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
        {R"(, "logprobs": 3)", "logprobs|"},
        {R"(, "top_logprobs": 3)", "top_logprobs|"},
        {R"(, "logprobs": true, "top_logprobs": 21)", "top_logprobs|"},
        {R"(, "response_format": "text")", "response_format|"},
        {R"(, "response_format": {"type": "xml"})", "response_format|"},
        {R"(, "response_format": {"type": "json_object", "more": 1})", "more|"},
        {R"(, "response_format": {"type": "json_schema"})", "response_format|"},
        {R"(, "response_format": {"type": "json_schema", "json_schema": {"schema": 7}})", "response_format|"},
        {R"(, "response_format": {"type": "json_schema", "json_schema": {"schema": {}, "x": 1}})", "x|"},
        {R"(, "tools": [{"type": "function"}])", "tools|"},
        {R"(, "logit_bias": {"1": 200})", "logit_bias|"},
        {R"(, "logit_bias": {"the": 2})", "logit_bias|"},
        {R"(, "logit_bias": {"99999999999": 2})", "logit_bias|"},
        {R"(, "logit_bias": [1])", "logit_bias|"},
        {R"(, "frequency_penalty": 2.5)", "frequency_penalty|"},
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
    std::string many = R"({"messages": {)";
    for (int i = 0; i < 10'001; ++i) many += "\"k" + std::to_string(i) + "\": 0,";
    CHECK_THAT(refusal(Endpoint::chat, many + R"("end": 0}})"), ContainsSubstring("fields"));
}

TEST_CASE("a schema comes in the order in which its properties are given", "[serve]") {
    const auto schema = [](const std::string& format) { return chat(R"(, "response_format": )" + format).schema; };
    CHECK(schema(R"({"type": "json_object"})") == R"({"type": "object"})");
    CHECK(schema(R"({"type": "json_schema", "json_schema": {"name": "n", "strict": true, "schema":
                    {"type": "object", "properties": {"z": {"type": "null"}, "a": {"type": "null"}}}}})") ==
          R"({"type":"object","properties":{"z":{"type":"null"},"a":{"type":"null"}}})");
}

TEST_CASE("log-probabilities are asked for in the words of each endpoint", "[serve]") {
    using Top = std::optional<std::int64_t>;
    CHECK(chat(R"(, "logprobs": true)").generation.logprobs == Top(0));
    CHECK(chat(R"(, "logprobs": true, "top_logprobs": 5)").generation.logprobs == Top(5));
    const auto text = [](const std::string& more) {
        return parse_request(Endpoint::text, R"({"prompt": "a")" + more + "}", {}).generation.logprobs;
    };
    CHECK(text(R"(, "logprobs": 0)") == Top(0));
    CHECK(text(R"(, "logprobs": 3)") == Top(3));
    CHECK_FALSE(text(R"(, "logprobs": null)"));
    CHECK_THAT(refusal(Endpoint::text, R"({"prompt": "a", "logprobs": true})"), ContainsSubstring("logprobs|"));
}

namespace {

/// Tokens 0 to 3: a letter, two halves of a character, a special token; 4: "bc".
TokenName name_of(TokenId token) {
    const std::vector<TokenName> names{{"a", ""}, {"\xc3", ""}, {"\xa4", ""}, {"", "<end>"}, {"bc", ""}};
    return names.at(static_cast<std::size_t>(token));
}

const TokenLogprobs kHalf{-0.5, {{0, -0.25}, {3, -1.5}}};
const TokenLogprobs kNever{-std::numeric_limits<double>::infinity(), {{0, -0.25}}};

}  // namespace

TEST_CASE("log-probabilities of a chat: a name, its bytes, and the best ones", "[serve]") {
    LogprobWriter writer(Endpoint::chat, 2, name_of);
    for (const TokenId token : {0, 1, 2, 4, 3}) writer.push(token, token == 4 ? kNever : kHalf);
    const auto told = writer.take(
        "a\xc3\xa4"
        "b");  // a stop string cut the c, and the end token is behind it
    const auto& content = told["content"];
    REQUIRE(content.size() == 4);
    CHECK(content[0]["token"] == "a");
    CHECK(content[0]["logprob"] == -0.5);
    CHECK(content[0]["bytes"] == std::vector<int>{97});
    CHECK(content[0]["top_logprobs"][1]["token"] == "<end>");
    CHECK(content[0]["top_logprobs"][1]["logprob"] == -1.5);
    CHECK(content[0]["top_logprobs"][1]["bytes"].is_null());
    CHECK(content[1]["token"] == "bytes:\\xc3");
    CHECK(content[1]["bytes"] == std::vector<int>{0xc3});
    CHECK(content[3]["token"] == "bc");
    CHECK(content[3]["logprob"] == -9999.0);
    CHECK(writer.take("").is_null());
}

TEST_CASE("log-probabilities of a text: four lists, offsets in characters", "[serve]") {
    LogprobWriter writer(Endpoint::text, 2, name_of);
    for (const TokenId token : {0, 1, 2, 4}) writer.push(token, kHalf);
    const auto told = writer.take(
        "a\xc3\xa4"
        "bc");
    CHECK(told["tokens"] == std::vector<std::string>{"a", "bytes:\\xc3", "bytes:\\xa4", "bc"});
    CHECK(told["text_offset"] == std::vector<int>{0, 1, 2, 2});
    CHECK(told["token_logprobs"] == std::vector<double>(4, -0.5));
    CHECK(told["top_logprobs"][3]["bc"] == -0.5);
    CHECK(told["top_logprobs"][3]["a"] == -0.25);
    LogprobWriter chosen(Endpoint::text, 0, name_of);
    chosen.push(0, {-0.5, {}});
    CHECK(chosen.take("a")["top_logprobs"].is_null());
}

TEST_CASE("pieces of a text tell together what the whole tells", "[serve]") {
    for (const Endpoint endpoint : {Endpoint::chat, Endpoint::text}) {
        LogprobWriter whole(endpoint, 2, name_of), parts(endpoint, 2, name_of);
        std::vector<nlohmann::ordered_json> told;
        const std::vector<std::pair<TokenId, std::string>> steps{
            {0, ""}, {4, "ab"}, {1, "c"}, {2, "\xc3\xa4"}, {3, ""}};
        for (const auto& [token, text] : steps) {
            parts.push(token, kHalf), whole.push(token, kHalf);
            if (auto piece = parts.take(text); !piece.is_null()) told.push_back(std::move(piece));
        }
        const auto all = whole.take("abc\xc3\xa4");
        const char* list = endpoint == Endpoint::chat ? "content" : "tokens";
        auto joined = nlohmann::ordered_json::array();
        for (const auto& piece : told) joined.insert(joined.end(), piece[list].begin(), piece[list].end());
        CHECK(joined == all[list]);
        CHECK(joined.size() == 4);
    }
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

TEST_CASE("a body that is almost right is a request or an error of the API, and nothing else", "[serve]") {
    const std::string body = R"({"model": "m", "messages": [{"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "count"}]}], "prompt": ["a", [1, 2]], "max_tokens": 12,
        "temperature": 0.7, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "seed": -3, "stop": ["x", "y"], "n": 2, "stream": true,
        "stream_options": {"include_usage": true}, "logit_bias": {"3": -100}, "presence_penalty": 1, "logprobs": LOGPROBS,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"$ref": "#/$defs/c"}, "maxItems": 3}},
            "required": ["a"], "$defs": {"c": {"enum": ["x", 1, null]}}}}}})";
    for (const Endpoint endpoint : {Endpoint::chat, Endpoint::text}) {
        const bool chat = endpoint == Endpoint::chat;
        std::string own = body;
        own.replace(own.find("LOGPROBS"), 8, chat ? "true, \"top_logprobs\": 3" : "3");
        const std::string other = chat ? "\"prompt\": [\"a\", [1, 2]]," : "\"messages\": ";
        const std::size_t begin = own.find(other);
        own.erase(begin, chat ? other.size() : own.find("\"prompt\"") - begin);
        test::fuzz(
            own, test::kJsonWords,
            [&](const std::string& text) {
                try {
                    const ApiRequest request = parse_request(endpoint, text, {});
                    if (!request.schema.empty()) (void)Grammar::json_schema(request.schema);
                } catch (const ApiError& error) {
                    throw Error(error.what());
                }
            },
            test::fuzz_inputs() / 5);
    }
}
