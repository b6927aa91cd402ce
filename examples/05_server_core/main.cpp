// The core of a server, without its network: clients on threads of their own ask, one thread decodes. Some leave in the
// middle, one asks for more than there is memory for, and who stays gets the text that it would have got alone.
//     05_server_core MODEL.gguf
#include <fmt/format.h>
#include <outrider/core/error.hpp>
#include <outrider/engine/async_engine.hpp>

#include <chrono>
#include <cstdio>
#include <future>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace {

using outrider::AsyncEngine;
using outrider::GenerationOptions;
using outrider::GenerationResult;

// [visit]
GenerationResult ask(AsyncEngine& engine, int client, outrider::AsyncRequest request = {}) {
    const std::string question = fmt::format("Name {} animals of the sea.", client + 2);
    return engine.submit(engine.model().chat(question), GenerationOptions{.max_tokens = 40}, std::move(request)).get();
}

/// A client that reads piece by piece; every fourth one has enough after the first.
GenerationResult visit(AsyncEngine& engine, int client) {
    std::stop_source leave;
    outrider::AsyncRequest request;
    request.sink = [&leave, client](std::string_view) {
        if (client % 4 == 3) leave.request_stop();
    };
    request.stop = leave.get_token();
    request.deadline = std::chrono::steady_clock::now() + std::chrono::minutes(10);
    request.priority = client % 2;
    return ask(engine, client, std::move(request));
}
// [visit]

bool refuses_what_never_fits(AsyncEngine& engine) {
    try {
        (void)engine.submit(engine.model().chat("Count to a million."), GenerationOptions{.max_tokens = 1'000'000});
    } catch (const outrider::RequestRefused& refused) {
        fmt::print("refused: {}\n", refused.what());
        return refused.why() == outrider::Refusal::too_large;
    }
    return false;
}

bool serve(const char* model) {
    constexpr int kClients = 8;
    auto engine = AsyncEngine::open({.model = model}, {.queue = 64, .memory = std::size_t{64} << 20});
    std::vector<GenerationResult> results(kClients);
    {
        std::vector<std::jthread> clients;
        for (int i = 0; i < kClients; ++i)
            clients.emplace_back([&, i] { results[static_cast<std::size_t>(i)] = visit(engine, i); });
    }
    bool fine = refuses_what_never_fits(engine);
    for (int i = 0; i < kClients; ++i) {
        const GenerationResult& told = results[static_cast<std::size_t>(i)];
        const GenerationResult alone = ask(engine, i);
        fmt::print("client {}: {} tokens, {}\n", i, told.tokens.size(), outrider::to_string(told.finish));
        fine = fine && alone.text.starts_with(told.text) &&
               (told.finish == outrider::FinishReason::cancelled || told.text == alone.text);
    }
    const outrider::AsyncMetrics figures = engine.metrics();
    fmt::print("{} served, {} left, {:.2f} tokens a pass: {}\n", figures.stopped + figures.length, figures.cancelled,
               figures.decoded.beta(), fine ? "each as alone" : "NOT AS ALONE");
    return fine;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        fmt::print(stderr, "usage: {} MODEL.gguf\n", argv[0]);
        return 2;
    }
    try {
        return serve(argv[1]) ? 0 : 1;
    } catch (const outrider::Error& error) {
        fmt::print(stderr, "{}\n", error.what());
        return 1;
    }
}
