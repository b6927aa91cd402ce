// What a client may take of the server before anything is known of it: bytes, time, places.
#include <catch2/catch_all.hpp>

#include <nlohmann/json.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "raw_client.hpp"
#include "toy_server.hpp"

using namespace outrider;
using namespace outrider::serve;
using namespace outrider::test;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Json = nlohmann::json;

namespace {

using Running = ToyServer<>;
const std::string kStart = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
const std::string kHead = kStart + "Content-Type: application/json\r\n";

std::string chunk(const std::string& bytes) {
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
    return size + bytes + "\r\n";
}

bool honest_is_served(int port) {
    RawClient client(port, "/v1/chat/completions", toy_ask("honest", 5, false).dump());
    return client.read().status() == 200;
}

}  // namespace

TEST_CASE("a body in chunks is bounded like any other", "[serve][limits]") {
    const Running server;
    const std::string body = toy_ask("in chunks", 5, false).dump();
    RawClient fits(server.port());
    fits.send(kHead + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body.substr(0, 9)) + chunk(body.substr(9)) +
              "0\r\n\r\n");
    CHECK(fits.read().status() == 200);
    RawClient large(server.port());
    large.send(kHead + "Transfer-Encoding: chunked\r\n\r\n");
    std::size_t taken = 0;  // the server stops reading soon behind its limit of 50,000 bytes
    while (taken < 40 && large.send(chunk(std::string(std::size_t{1} << 20, ' ')))) ++taken;
    CHECK(large.read().status() == 413);
    CHECK_THAT(large.body(), ContainsSubstring("50000"));
    RawClient lines(server.port());  // the mark of a chunk that never ends
    lines.send(kHead + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(400'000, 'a'));
    CHECK(lines.read().status() == 413);
    CHECK(honest_is_served(server.port()));
}

TEST_CASE("bodies whose length is not clear are refused", "[serve][limits]") {
    const Running server;
    const auto status = [&](const std::string& headers, const std::string& body = "{}") {
        RawClient client(server.port());
        client.send(kHead + headers + "\r\n" + body);
        return client.read().status();
    };
    CHECK(status("") == 411);
    CHECK(status("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n") == 400);
    CHECK(status("Content-Length: 2\r\nContent-Length: 20\r\n") == 411);
    CHECK(status("Transfer-Encoding: gzip, chunked\r\n") == 501);
    CHECK(status("Content-Encoding: gzip\r\nContent-Length: 2\r\n") == 415);
    CHECK(status("Content-Length: 99999999999\r\n") == 413);
    CHECK(status("Content-Length: 2\r\n") == 400);  // {} names no messages
}

TEST_CASE("a head is bounded", "[serve][limits]") {
    const Running server;
    for (const std::string& head : {kStart + "X: ", kStart, std::string("POST /"), std::string("\r\n")}) {
        CAPTURE(head);
        RawClient client(server.port());
        client.send(head);
        const std::string line = head == kStart ? "A: b\r\n" : "aaaaaaaa";
        std::string many;
        while (many.size() < (std::size_t{1} << 20)) many += line;
        for (int i = 0; i < 20; ++i) client.send(many);
        CHECK(client.read().status() == 431);
        CHECK(Json::parse(client.body())["error"]["type"] == "invalid_request_error");
    }
    RawClient ranges(server.port());
    std::string asked = "rAnge: bytes=0-9";
    while (asked.size() < 8000) asked += ",0-9";
    const std::string body = toy_ask("many times over", 50, false).dump();
    ranges.send(kHead + "X: " + asked.substr(0, 100) + "\r\n" + asked.substr(0, 8000) +
                "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    CHECK(ranges.read().status() == 200);
    CHECK(ranges.body().size() < 2000);
    CHECK(honest_is_served(server.port()));
}

TEST_CASE("who has no key is refused before a body is read", "[serve][limits]") {
    ServerOptions options = Running::options();
    options.key = "secret";
    options.arrival_time = 60s;
    const Running server(options);
    for (const std::string path : {"/v1/chat/completions", "/nothing"})
        for (const std::string method : {"POST", "PUT", "PATCH", "DELETE"}) {
            CAPTURE(path, method);
            RawClient client(server.port());  // of the body that it announces nothing comes
            client.send(
                method + " " + path +
                " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n");
            CHECK(client.read(12).status() == 401);
        }
}

TEST_CASE("what follows a body that was not read is no request", "[serve][limits]") {
    const Running server;
    RawClient client(server.port());
    client.send(
        "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 36\r\n\r\n"
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    const std::string text = client.read().body();
    CHECK(client.status() == 200);
    CHECK_THAT(text, !ContainsSubstring("outrider_"));
    RawClient both(server.port());
    both.send(
        "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    CHECK_THAT(both.read().body(), ContainsSubstring("outrider_"));
}

TEST_CASE("slow senders do not keep the server from others", "[serve][limits]") {
    ServerOptions options = Running::options();
    options.connections = 4;
    options.arrival_time = 300ms;
    const Running server(options);
    std::vector<std::unique_ptr<RawClient>> slow;
    for (int i = 0; i < 8; ++i) {
        slow.push_back(std::make_unique<RawClient>(server.port()));
        slow.back()->send(i % 2 == 0 ? kStart + "X: " : kHead + "Content-Length: 2000\r\n\r\n{");
    }
    std::atomic<bool> served = false;
    std::jthread honest([&] { served = honest_is_served(server.port()); });
    for (int i = 0; i < 2000 && !served; ++i, std::this_thread::sleep_for(10ms))
        for (const auto& client : slow) client->send("a");
    CHECK(served);
    for (const auto& client : slow) CHECK(client->read().status() == 408);
}

TEST_CASE("more connections than may wait are told so", "[serve][limits]") {
    ServerOptions options = Running::options();
    options.connections = 1;
    const Running server(options);
    std::vector<std::unique_ptr<RawClient>> many;
    many.push_back(
        std::make_unique<RawClient>(server.port(), "/v1/chat/completions", toy_ask("on and on", 20'000, true).dump()));
    many.back()->read(2000);                                                                 // it is served
    for (int i = 0; i < 5; ++i) many.push_back(std::make_unique<RawClient>(server.port()));  // four of them wait
    CHECK(many.back()->read().status() == 503);
    CHECK(Json::parse(many.back()->body())["error"]["code"] == "busy");
    many.clear();
    int tries = 0;
    while (!honest_is_served(server.port()) && ++tries < 1000) std::this_thread::sleep_for(5ms);
    CHECK(tries < 1000);
}

namespace {

/// Where names are asked for while an answer is written, there is none.
struct Nameless : ToyServed {
    [[nodiscard]] TokenName name(TokenId) const override { throw std::runtime_error("no name"); }
    void submit(Prompt prompt, GenerationOptions options, AsyncRequest request) override {
        request.sink = [sink = request.sink](const EmittedToken& token) mutable {
            EmittedToken told = token;
            static const TokenLogprobs logprobs;
            if (token.token % 7 == 0) told.logprobs = &logprobs;
            return sink(told);
        };
        ToyServed::submit(std::move(prompt), std::move(options), std::move(request));
    }
};

}  // namespace

TEST_CASE("an exception while a stream is written ends that connection alone", "[serve][limits]") {
    const ToyServer<Nameless> server;
    Json ask = toy_ask("a stream", 2000, true);
    ask["logprobs"] = true;
    RawClient client(server.port(), "/v1/chat/completions", ask.dump());
    CHECK_THAT(client.read().body(), !ContainsSubstring("[DONE]"));
    CHECK(honest_is_served(server.port()));
}

TEST_CASE("a server at a loopback address wants to be called so, whichever it is", "[serve][limits]") {
    for (const std::string host : {"127.0.0.1", "::1", "localhost"}) {
        CAPTURE(host);
        ServerOptions options = Running::options();
        options.host = host;
        std::unique_ptr<Running> server;
        try {
            server = std::make_unique<Running>(options);
        } catch (const Error&) {
            WARN("this machine has no " << host);
            continue;
        }
        const auto status = [&](const std::string& name) {
            RawClient client(server->port(), host == "::1");
            client.send("GET /v1/models HTTP/1.1\r\nConnection: close\r\nHost: " + name + "\r\n\r\n");
            return client.read().status();
        };
        CHECK(status("evil.example") == 403);
        CHECK(status("") == 403);
        CHECK(status("localhost:8080") == 200);
        CHECK(status("[::1]:8080") == 200);
        CHECK(status("127.0.0.1") == 200);
    }
}
