// The server on a free port, with a client of the same library, on a tiny random model.
#include <catch2/catch_all.hpp>

#include <httplib.h>
#include <nlohmann/json.hpp>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <outrider/engine.hpp>
#include <outrider/engine/async_engine.hpp>

#include "engine/prompt_stream.hpp"
#include "serve/served_engine.hpp"
#include "serve/server.hpp"

using namespace outrider;
using namespace outrider::serve;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Json = nlohmann::json;

namespace {

const std::string kTiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";

const LlamaModel& tiny() {
    static const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1, .chat_template = "chatml"});
    return model;
}

EngineOptions engine_options() {
    EngineOptions options;
    options.drafter = "ngram";
    options.decoder = {.nodes = 6, .max_batch = 4};
    return options;
}

/// A server that runs while it lives.
class Running {
public:
    explicit Running(ServerOptions options = {}, AsyncEngineOptions async = {},
                     EngineOptions engine_options_ = engine_options())
        : engine(Engine::open(tiny(), std::move(engine_options_)), async),
          served_(engine),
          server_(served_, with_port(std::move(options))) {
        thread_ = std::thread([this] { server_.run(); });
    }
    ~Running() {
        engine.stop();
        server_.stop();
        thread_.join();
    }

    [[nodiscard]] int port() const { return server_.port(); }
    [[nodiscard]] httplib::Client client(const std::string& key = {}) const {
        httplib::Client client("127.0.0.1", server_.port());
        client.set_read_timeout(30s);
        if (!key.empty()) client.set_bearer_token_auth(key);
        return client;
    }
    [[nodiscard]] httplib::Result post(const std::string& path, const Json& body) const {
        return client().Post(path, body.dump(), "application/json");
    }

    AsyncEngine engine;

private:
    static ServerOptions with_port(ServerOptions options) {
        options.port = 0;
        options.model = "tiny";
        return options;
    }

    ServedEngine served_;
    Server server_;
    std::thread thread_;
};

const Json kAsk = {{"messages", {{{"role", "user"}, {"content", "count to three"}}}}, {"max_tokens", 24}, {"seed", 3}};

/// The text that an engine gives to the same request alone.
std::string alone(const Prompt& prompt, GenerationOptions options, std::uint64_t choice = 0) {
    EngineOptions plain = engine_options();
    plain.drafter = "none";
    Engine engine = Engine::open(tiny(), plain);
    options.stream = outrider::detail::prompt_stream(prompt, choice);
    return engine.decoder().generate(prompt, options).text;
}

/// The objects of a stream, the end mark aside.
std::vector<Json> events_of(const std::string& body) {
    std::vector<Json> events;
    for (std::size_t at = body.find("data: "); at != std::string::npos; at = body.find("data: ", at + 1)) {
        const std::string line = body.substr(at + 6, body.find("\n\n", at) - at - 6);
        if (line != "[DONE]") events.push_back(Json::parse(line));
    }
    return events;
}

/// Waits until this holds.
template <typename Condition>
bool soon(Condition condition) {
    for (int i = 0; i < 2000; ++i, std::this_thread::sleep_for(5ms))
        if (condition()) return true;
    return false;
}

}  // namespace

TEST_CASE("a chat is answered with the text that it gets alone, whole and streamed", "[serve]") {
    const Running server;
    for (const double temperature : {0.0, 0.9}) {
        Json ask = kAsk;
        ask["temperature"] = temperature;
        ask["n"] = 3;
        const GenerationOptions options{.max_tokens = 24, .temperature = temperature, .seed = 3};
        const Prompt prompt = tiny().chat("count to three");
        const auto whole = server.post("/v1/chat/completions", ask);
        REQUIRE(whole);
        REQUIRE(whole->status == 200);
        const Json answer = Json::parse(whole->body);
        ask["stream"] = true;
        ask["stream_options"] = {{"include_usage", true}};
        const auto streamed = server.post("/v1/chat/completions", ask);
        REQUIRE(streamed);
        CHECK(streamed->get_header_value("Content-Type") == "text/event-stream");
        CHECK_THAT(streamed->body, Catch::Matchers::EndsWith("data: [DONE]\n\n"));
        std::vector<std::string> texts(3), finishes(3);
        Json usage;
        for (const Json& event : events_of(streamed->body)) {
            if (event.contains("usage")) usage = event["usage"];
            for (const Json& choice : event["choices"]) {
                const auto i = choice["index"].get<std::size_t>();
                texts[i] += choice["delta"].value("content", "");
                if (!choice["finish_reason"].is_null()) finishes[i] = choice["finish_reason"];
            }
        }
        for (const char* of : {"prompt_tokens", "completion_tokens", "total_tokens"})
            CHECK(usage[of] == answer["usage"][of]);
        for (const Json& all : {usage, answer["usage"]}) {  // what n-grams have learned meanwhile may change the drafts
            const Json& details = all["completion_tokens_details"];
            const auto drafted = details["drafted_tokens"].get<int>();
            CHECK(drafted > 0);
            CHECK(details["accepted_prediction_tokens"].get<int>() + details["rejected_prediction_tokens"].get<int>() ==
                  drafted);
        }
        for (std::size_t i = 0; i < 3; ++i) {
            CHECK(texts[i] == alone(prompt, options, i));
            CHECK(answer["choices"][i]["message"]["content"] == texts[i]);
            CHECK(answer["choices"][i]["finish_reason"] == finishes[i]);
        }
        CHECK((texts[0] == texts[1]) == (temperature == 0.0));
    }
}

TEST_CASE("log-probabilities are those of the engine, whole and streamed", "[serve]") {
    const Running server;
    EngineOptions plain = engine_options();
    plain.drafter = "none";
    Engine engine = Engine::open(tiny(), plain);
    const Prompt prompt = tiny().chat("count to three");
    GenerationOptions options{.max_tokens = 24, .temperature = 0.9, .seed = 3, .logprobs = 2};
    options.stream = outrider::detail::prompt_stream(prompt, 0);
    const GenerationResult alone = engine.decoder().generate(prompt, options);
    Json ask = kAsk;
    ask["temperature"] = 0.9, ask["logprobs"] = true, ask["top_logprobs"] = 2;
    const Json whole = Json::parse(server.post("/v1/chat/completions", ask)->body)["choices"][0]["logprobs"]["content"];
    REQUIRE(whole.size() >= 10);
    for (std::size_t i = 0; i < whole.size(); ++i) {
        CHECK(whole[i]["logprob"] == alone.logprobs[i].logprob);
        CHECK(whole[i]["top_logprobs"].size() == 2);
        CHECK(whole[i]["top_logprobs"][1]["logprob"] == alone.logprobs[i].top[1].logprob);
        std::string bytes;  // null for a special token
        for (const Json& byte : whole[i]["bytes"]) bytes += static_cast<char>(byte.get<int>());
        CHECK(bytes == tiny().tokenizer().bytes(alone.tokens[i]));
    }
    ask["stream"] = true;
    Json streamed = Json::array();
    for (const Json& event : events_of(server.post("/v1/chat/completions", ask)->body))
        for (const Json& choice : event["choices"])
            if (!choice["logprobs"].is_null())
                for (const Json& token : choice["logprobs"]["content"]) streamed.push_back(token);
    CHECK(streamed == whole);
    const Json ids = {{"prompt", prompt.tokens}, {"max_tokens", 8}, {"logprobs", 1}};
    const Json lists = Json::parse(server.post("/v1/completions", ids)->body)["choices"][0]["logprobs"];
    CHECK(lists["tokens"].size() == lists["token_logprobs"].size());
    CHECK(lists["tokens"].size() == lists["text_offset"].size());
    CHECK(lists["token_logprobs"][0] == lists["top_logprobs"][0].begin().value());  // greedy: the best one
}

TEST_CASE("an answer keeps to the schema that is asked for, whole and streamed", "[serve]") {
    const Running server;
    const Json schema = {{"type", "object"},
                         {"properties", {{"kind", {{"enum", {"red", "green"}}}}, {"count", {{"type", "integer"}}}}},
                         {"required", {"kind", "count"}}};
    Json ask = kAsk;
    ask["max_tokens"] = 200, ask["temperature"] = 1.0, ask["n"] = 3;
    ask["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"name", "n"}, {"schema", schema}}}};
    const Json answer = Json::parse(server.post("/v1/chat/completions", ask)->body);
    std::vector<std::string> texts;
    for (const Json& choice : answer["choices"]) {
        CHECK(choice["finish_reason"] == "stop");
        texts.push_back(choice["message"]["content"]);
        const Json value = Json::parse(texts.back());
        CHECK((value["kind"] == "red" || value["kind"] == "green"));
        CHECK(value["count"].is_number_integer());
    }
    CHECK(texts.size() == 3);
    ask["stream"] = true;
    std::vector<std::string> streamed(3);
    for (const Json& event : events_of(server.post("/v1/chat/completions", ask)->body))
        for (const Json& choice : event["choices"])
            streamed[choice["index"].get<std::size_t>()] += choice["delta"].value("content", "");
    CHECK(streamed == texts);
    ask["response_format"] = {{"type", "json_object"}};
    ask["stream"] = false, ask["max_tokens"] = 60, ask["n"] = 1;
    const Json object = Json::parse(server.post("/v1/chat/completions", ask)->body)["choices"][0];
    CHECK(object["message"]["content"].get<std::string>().starts_with("{"));
    for (const char* bad : {R"({"type": "object", "patternProperties": {}})", R"({"type": "thing"})",
                            R"({"$ref": "#x"})", R"({"required": 7, "type": "object"})"}) {
        CAPTURE(bad);
        ask["response_format"] = {{"type", "json_schema"}, {"json_schema", {{"schema", Json::parse(bad)}}}};
        const auto refused = server.post("/v1/chat/completions", ask);
        CHECK(refused->status == 400);
        CHECK_THAT(refused->body, ContainsSubstring("response_format"));
    }
    ask.erase("response_format");
    ask["logit_bias"] = {{std::to_string(tiny().config().vocabulary), 1}};
    CHECK(server.post("/v1/chat/completions", ask)->status == 400);
}

TEST_CASE("texts that ended are kept, and prompts that begin so are not read again", "[serve]") {
    EngineOptions keeping = engine_options();
    keeping.kept_bytes = std::size_t{16} << 20;
    const Running server({}, {}, keeping);
    Json ask = kAsk;
    ask["messages"][0]["content"] = "count to three and then to four and to five, and say so in many words";
    const auto told = [&] { return Json::parse(server.post("/v1/chat/completions", ask)->body); };
    const Json first = told(), second = told();
    CHECK(first["usage"]["prompt_tokens_details"]["cached_tokens"] == 0);
    const auto prompt = first["usage"]["prompt_tokens"].get<int>();
    CHECK(second["usage"]["prompt_tokens_details"]["cached_tokens"] == prompt - 1);
    CHECK(second["choices"] == first["choices"]);
    const std::string text = server.client().Get("/metrics")->body;
    CHECK_THAT(text, ContainsSubstring("outrider_resumed_tokens_total " + std::to_string(prompt - 1) + "\n"));
}

TEST_CASE("texts and ids are completed, several in one request", "[serve]") {
    const Running server;
    const Prompt first = tiny().raw("one two"), second = tiny().raw("three");
    const auto answer = server.post("/v1/completions", {{"prompt", {"one two", "three"}}, {"max_tokens", 9}});
    REQUIRE(answer);
    REQUIRE(answer->status == 200);
    const Json choices = Json::parse(answer->body)["choices"];
    CHECK(choices[0]["text"] == alone(first, {.max_tokens = 9}));
    CHECK(choices[1]["text"] == alone(second, {.max_tokens = 9}));
    const auto ids = server.post("/v1/completions", {{"prompt", first.tokens}, {"max_tokens", 9}});
    CHECK(Json::parse(ids->body)["choices"][0]["text"] == choices[0]["text"]);
    const auto stop =
        server.post("/v1/completions", {{"prompt", "one two"}, {"max_tokens", 9}, {"stop", choices[0]["text"]}});
    CHECK(Json::parse(stop->body)["choices"][0]["text"] == "");
    CHECK(Json::parse(stop->body)["choices"][0]["finish_reason"] == "stop");
}

TEST_CASE("bad requests are refused with a status and an error of the API", "[serve]") {
    ServerOptions options;
    options.max_body = 20'000;
    const Running server(options);
    const auto status = [&](const httplib::Result& result, const std::string& code) {
        REQUIRE(result);
        CHECK_THAT(result->body, ContainsSubstring("\"error\""));
        CHECK_THAT(result->body, ContainsSubstring(code));
        return result->status;
    };
    auto client = server.client();
    CHECK(status(client.Post("/v1/chat/completions", "{", "application/json"), "invalid_json") == 400);
    CHECK(status(client.Post("/v1/chat/completions", kAsk.dump(), "text/plain"), "media_type") == 415);
    CHECK(status(client.Post("/v1/nothing", "{}", "application/json"), "not_found") == 404);
    CHECK(status(client.Post("/v1/completions", std::string(30'000, ' '), "application/json"), "error") == 413);
    Json ask = kAsk;
    ask["model"] = "another";
    CHECK(status(server.post("/v1/chat/completions", ask), "model_not_found") == 404);
    ask = kAsk;
    ask["tools"] = {{{"type", "function"}}};
    CHECK(status(server.post("/v1/chat/completions", ask), "unsupported_parameter") == 400);
    const std::vector<int> many(static_cast<std::size_t>(tiny().config().context), 1);
    CHECK(status(server.post("/v1/completions", {{"prompt", many}}), "context_length_exceeded") == 400);
    const Json unknown = {{"prompt", {1'000'000}}, {"stream", true}};
    CHECK(status(server.post("/v1/completions", unknown), "vocabulary") == 400);
    const httplib::Headers elsewhere{{"Host", "attacker.example"}};
    CHECK(status(client.Post("/v1/chat/completions", elsewhere, kAsk.dump(), "application/json"), "wrong_host") == 403);
    CHECK(server.post("/v1/chat/completions", kAsk)->status == 200);
}

TEST_CASE("a key is asked for", "[serve]") {
    ServerOptions options;
    options.key = "secret";
    const Running server(options);
    CHECK(server.client().Get("/v1/models")->status == 401);
    CHECK(server.client("secres").Get("/v1/models")->status == 401);
    CHECK(server.client("secret").Get("/v1/models")->status == 200);
    CHECK(server.client().Get("/metrics")->status == 401);
    CHECK(server.client().Get("/health")->status == 200);
    CHECK(server.client().Post("/v1/completions", R"({"prompt": "a"})", "application/json")->status == 401);
}

TEST_CASE("models and metrics", "[serve]") {
    const Running server;
    (void)server.post("/v1/chat/completions", kAsk);
    CHECK(Json::parse(server.client().Get("/v1/models")->body)["data"][0]["id"] == "tiny");
    const std::string text = server.client().Get("/metrics")->body;
    CHECK_THAT(text, ContainsSubstring("outrider_requests_submitted_total 1\n"));
    CHECK_THAT(text, ContainsSubstring("outrider_requests_active 0\n"));
    CHECK_THAT(text, ContainsSubstring("outrider_tokens_total"));
}

TEST_CASE("a client that leaves ends its text", "[serve]") {
    const Running server;
    Json ask = kAsk;
    ask["max_tokens"] = 3000;
    for (const bool stream : {false, true}) {
        ask["stream"] = stream;
        ask["stop"] = "\x01 never";
        const std::int64_t before = server.engine.metrics().cancelled;
        auto client = server.client();
        std::thread leaves([&] {
            REQUIRE(soon([&] { return server.engine.metrics().active == 1; }));
            client.stop();
        });
        (void)client.Post("/v1/chat/completions", ask.dump(), "application/json");
        leaves.join();
        CHECK(soon([&] { return server.engine.metrics().active == 0; }));
        const AsyncMetrics metrics = server.engine.metrics();
        CHECK(metrics.cancelled + metrics.stopped + metrics.length > before);
    }
    CHECK(server.post("/v1/chat/completions", kAsk)->status == 200);
}

TEST_CASE("what does not fit into memory, the queue or the time is told so", "[serve]") {
    ServerOptions options;
    options.request_time = 0s;
    const Running late(options);
    CHECK(late.post("/v1/chat/completions", kAsk)->status == 504);
    const Running full({}, {.queue = 0});
    CHECK(full.post("/v1/chat/completions", kAsk)->status == 429);
    AsyncEngine measure(Engine::open(tiny(), engine_options()), {.memory = std::size_t{1} << 20});
    const auto bytes = (std::size_t{1} << 20) / static_cast<std::size_t>(measure.tokens()) * 200;
    const Running small({}, {.memory = bytes});
    Json ask = kAsk;
    CHECK(small.post("/v1/chat/completions", ask)->status == 200);
    ask["max_tokens"] = 300;
    CHECK(small.post("/v1/chat/completions", ask)->status == 413);
    CHECK_THROWS_AS(AsyncEngine(Engine::open(tiny(), engine_options()), {.memory = 1}), Error);
}

TEST_CASE("many clients at once get what they get alone", "[serve]") {
    const Running server;
    std::vector<std::string> expected;
    for (int i = 0; i < 6; ++i)
        expected.push_back(alone(tiny().chat("count to " + std::to_string(i)), {.max_tokens = 20, .seed = 3}));
    std::atomic<int> wrong = 0;
    std::vector<std::jthread> clients;
    for (int c = 0; c < 6; ++c)
        clients.emplace_back([&, c] {
            for (int i = 0; i < 6; ++i) {
                const int which = (c + i) % 6;
                Json ask = kAsk;
                ask["messages"][0]["content"] = "count to " + std::to_string(which);
                ask["max_tokens"] = 20;
                const auto answer = server.post("/v1/chat/completions", ask);
                if (!answer || answer->status != 200)
                    ++wrong;
                else
                    wrong += Json::parse(answer->body)["choices"][0]["message"]["content"] !=
                             expected[static_cast<std::size_t>(which)];
            }
        });
    clients.clear();
    CHECK(wrong == 0);
}

TEST_CASE("a server that is stopped ends its answers and closes", "[serve]") {
    std::thread asks;
    std::atomic<int> status = 0;
    {
        const Running server;
        Json ask = kAsk;
        ask["max_tokens"] = 3000;
        ask["stop"] = "\x01 never";
        asks = std::thread([&status, ask, client = std::make_shared<httplib::Client>(server.client())] {
            const auto answer = client->Post("/v1/chat/completions", ask.dump(), "application/json");
            status = answer ? answer->status : -1;
        });
        REQUIRE(soon([&] { return server.engine.metrics().submitted == 1; }));
    }
    asks.join();
    CHECK((status == 503 || status == 200));
}

TEST_CASE("a place that is taken is an error", "[serve]") {
    const Running server;
    AsyncEngine engine(Engine::open(tiny(), engine_options()));
    ServedEngine served(engine);
    ServerOptions options;
    options.port = server.port();
    CHECK_THROWS_AS(Server(served, options), Error);
}
