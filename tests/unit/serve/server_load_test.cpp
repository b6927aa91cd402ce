// The server under load, with all kinds of clients at once. The decoder is a toy without tensors, so that the thread
// sanitizer can run it (preset threads); every text must be the one that its request gets alone.
#include <catch2/catch_all.hpp>

#include <nlohmann/json.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "raw_client.hpp"
#include "toy_server.hpp"

using namespace outrider;
using namespace outrider::serve;
using namespace outrider::test;
using namespace std::chrono_literals;
using Json = nlohmann::json;

namespace {

constexpr std::int64_t kMemory = kToyMemory, kEndless = 20'000;
const std::string kSchema = R"({"type": "object", "properties": {"a": {"type": "string", "maxLength": 9},
    "b": {"enum": [1, 22, 333]}}, "required": ["a", "b"]})";
using Running = ToyServer<>;

Json ask(const std::string& content, std::int64_t tokens, bool stream) { return toy_ask(content, tokens, stream); }

/// Of a whole answer or of a stream. What is no such thing is no text.
std::string text_of(const std::string& body, bool stream) {
    if (!stream) {
        const Json answer = Json::parse(body, nullptr, false);
        return answer.contains("choices") ? answer["choices"][0]["message"]["content"].get<std::string>() : body;
    }
    std::string text;
    for (std::size_t at = body.find("data: {"); at != std::string::npos; at = body.find("data: {", at + 1)) {
        const Json event = Json::parse(body.substr(at + 6, body.find("\n\n", at) - at - 6), nullptr, false);
        if (!event.contains("choices")) return body;
        for (const Json& choice : event["choices"]) text += choice["delta"].value("content", "");
    }
    return body.ends_with("data: [DONE]\n\n") ? text : "cut short: " + text;
}

enum class Kind { whole, stream, slow, json, leaves, vanishes, broken_off, bad_json, oversize, too_large, fails };
constexpr std::array kKinds{Kind::whole,    Kind::whole,     Kind::stream,   Kind::stream,     Kind::slow,
                            Kind::json,     Kind::leaves,    Kind::vanishes, Kind::broken_off, Kind::bad_json,
                            Kind::oversize, Kind::too_large, Kind::fails};
#ifdef __SANITIZE_THREAD__
constexpr bool kFailuresToo = false;  // how libstdc++ counts exceptions is hidden from the thread sanitizer
#else
constexpr bool kFailuresToo = true;
#endif

/// What is wrong with the answer to request `index`; empty: nothing.
class Load {
public:
    explicit Load(const Running& server) : port_(server.port()), constraint_(constraints_.of(kSchema)) {}

    std::string run(int index) const {
        std::mt19937 random(static_cast<unsigned>(index));
        const std::string content = "request " + std::to_string(index), chat = "/v1/chat/completions";
        const auto tokens = static_cast<std::int64_t>(1 + random() % 200);
        const bool stream = random() % 2 == 0;
        const auto status = [&](const Json& body, int expected) { return status_of(chat, body.dump(), expected); };
        switch (kKinds[random() % kKinds.size()]) {
            case Kind::whole: return compared(content, ask(content, tokens, false));
            case Kind::stream: return compared(content, ask(content, tokens, true));
            case Kind::slow: return compared(content, ask(content, tokens, true), 300us);
            case Kind::json: {
                Json body = ask(content, 400, stream);
                body["response_format"] = {{"type", "json_schema"},
                                           {"json_schema", {{"name", "it"}, {"schema", Json::parse(kSchema)}}}};
                return compared(content, body, {}, constraint_.get());
            }
            case Kind::leaves: RawClient(port_, chat, ask(content, kEndless, true).dump()).read(2000); return {};
            case Kind::vanishes: RawClient(port_, chat, ask(content, kEndless, stream).dump()); return {};
            case Kind::broken_off: RawClient(port_, chat, "{\"mess", 500); return {};
            case Kind::bad_json: return status_of(chat, "{\"messages\": [", 400);
            case Kind::oversize: return status(ask(std::string(60'000, 'x'), tokens, false), 413);
            case Kind::too_large: return status(ask(content, kMemory, stream), 413);
            case Kind::fails:
                if (!kFailuresToo) return {};
                return status(ask(random() % 2 == 0 ? "broken" : "refused", tokens, stream), -1);
        }
        return "no kind";
    }

private:
    /// `expected` -1: any error.
    [[nodiscard]] std::string status_of(const std::string& path, const std::string& body, int expected) const {
        RawClient client(port_, path, body);
        const int status = client.read().status();
        if (expected == -1 ? status >= 400 : status == expected) return {};
        return "status " + std::to_string(status) + ": " + client.body();
    }

    [[nodiscard]] std::string compared(const std::string& content, const Json& body,
                                       std::chrono::microseconds sleep = {},
                                       const Constraint* constraint = nullptr) const {
        const std::string expected =
            toy_detokenizer().all(toy_text(tokens_of(content), body["max_tokens"], constraint));
        RawClient client(port_, "/v1/chat/completions", body.dump());
        const std::string text = text_of(client.read(std::string::npos, sleep).body(), body["stream"]);
        return text == expected ? "" : "'" + text + "' instead of '" + expected + "'";
    }

    int port_;
    mutable Constraints constraints_{toy_detokenizer(), kToyVocabulary};
    std::shared_ptr<const Constraint> constraint_;
};

/// Once: the constants that cpp-httplib makes at their first use are made and seen by all threads that follow. It is a
/// compiled library, whose guards around them the thread sanitizer does not see.
void warm_up() {
    static const bool once = [] {
        Running server;
        for (const bool stream : {false, true})
            RawClient(server.port(), "/v1/chat/completions", ask("x", 5, stream).dump()).read();
        RawClient(server.port(), "/v1/nothing", "{").read();
        return true;
    }();
    (void)once;
}

std::size_t open_files() {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
    return count;
}

}  // namespace

TEST_CASE("200 requests of 16 threads and of all kinds get what they get alone, and nothing stays", "[serve][load]") {
    warm_up();
    const std::size_t files = open_files();
    std::vector<std::string> wrong;
    {
        Running server;
        const Load load(server);
        std::atomic<int> next = 0;
        std::mutex mutex;
        std::vector<std::jthread> clients;
        for (int c = 0; c < 16; ++c)
            clients.emplace_back([&] {
                for (int index = next++; index < 200; index = next++) {
                    std::string what = load.run(index);
                    const std::scoped_lock lock(mutex);
                    if (!what.empty()) wrong.push_back("request " + std::to_string(index) + ": " + what);
                }
            });
        clients.clear();
        CHECK(server.served.wait_idle());  // texts of clients that left end too
        const AsyncMetrics metrics = server.served.metrics();
        CHECK(metrics.submitted == metrics.length + metrics.cancelled + metrics.failed);
        CHECK(metrics.length > 60);
        CHECK(metrics.cancelled > 0);
        CHECK(metrics.refused > 0);
        CHECK((metrics.failed > 0) == kFailuresToo);
        CHECK(metrics.tokens_held == 0);
        CHECK(metrics.active == 0);
    }
    CHECK(wrong == std::vector<std::string>{});
    CHECK(open_files() == files);
}

TEST_CASE("a full queue refuses, and takes again when there is room", "[serve][load]") {
    warm_up();
    Running server(Running::options(), 3);
    std::atomic<int> served = 0, refused = 0, other = 0;
    std::vector<std::jthread> clients;
    for (int c = 0; c < 16; ++c)
        clients.emplace_back([&, c] {
            for (int i = 0; i < 6; ++i) {
                RawClient client(server.port(), "/v1/chat/completions",
                                 ask(std::to_string(100 * c + i), 300, i % 2 == 0).dump());
                const int status = client.read().status();
                ++(status == 200 ? served : status == 429 ? refused : other);
            }
        });
    clients.clear();
    CHECK(served > 0);
    CHECK(served + refused == 16 * 6);
    CHECK(other == 0);
    CHECK(server.served.wait_idle());
}

TEST_CASE("a server that is stopped under load answers everyone and closes", "[serve][load]") {
    warm_up();
    const std::size_t files = open_files();
    std::atomic<int> answered = 0;
    std::mutex mutex;
    std::vector<std::string> others;
    std::vector<std::jthread> clients;
    {
        Running server;
        for (int c = 0; c < 16; ++c)
            clients.emplace_back([&, c, port = server.port()] {
                RawClient client(port, "/v1/chat/completions", ask(std::to_string(c), kEndless, c % 2 == 0).dump());
                client.read();
                // Whose text was whole before the server stopped has it.
                const bool told =
                    client.status() == 503 || client.body().ends_with("data: [DONE]\n\n") ||
                    (client.status() == 200 && Json::parse(client.body())["usage"]["completion_tokens"] == kEndless);
                answered += told ? 1 : 0;
                const std::scoped_lock lock(mutex);
                if (!told) others.push_back(std::to_string(client.status()) + ": " + client.body());
            });
        while (server.served.metrics().submitted < 16) std::this_thread::sleep_for(1ms);
    }
    clients.clear();
    CHECK(answered == 16);
    CHECK(others == std::vector<std::string>{});
    CHECK(open_files() == files);
}
