// An engine for many threads: model, drafter and policy by name, requests from anywhere.
//
//     AsyncEngine engine = AsyncEngine::open({.model = path}, {.memory = std::size_t{2} << 30});
//     auto answer = engine.submit(engine.model().chat("Why is the sky blue?"), {.max_tokens = 128});
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/prompt.hpp>
#include <outrider/decode/request.hpp>
#include <outrider/engine.hpp>

namespace outrider {

struct AsyncEngineOptions {
    std::size_t queue = 256;  ///< see AsyncOptions
    /// Bytes that the KV caches of the target may take together; 0: no bound. What drafters keep comes on top.
    std::size_t memory = 0;
};

/// AsyncDecoder over an Engine, compiled once in the library. Movable; its functions may be called from any thread.
class OUTRIDER_API AsyncEngine {
public:
    /// As Engine::open. Throws Error, also where `memory` holds not even the smallest cache.
    [[nodiscard]] static AsyncEngine open(EngineOptions options, AsyncEngineOptions async = {});
    /// Around an engine; from now on its decoder belongs to the decoding thread.
    explicit AsyncEngine(Engine engine, AsyncEngineOptions async = {});
    AsyncEngine(AsyncEngine&&) noexcept;
    AsyncEngine& operator=(AsyncEngine&&) noexcept;
    /// Ends what is left as cancelled.
    ~AsyncEngine();

    /// For prompts: chat, raw.
    [[nodiscard]] const LlamaModel& model() const noexcept;
    /// The drafter's name.
    [[nodiscard]] const std::string& drafter() const noexcept;
    /// Tokens that all sequences may hold together; 0: no bound.
    [[nodiscard]] std::int64_t tokens() const noexcept;

    /// See AsyncDecoder.
    std::future<GenerationResult> submit(Prompt prompt, GenerationOptions options = {}, AsyncRequest request = {});
    void close();
    void stop();
    bool wait_idle(std::chrono::nanoseconds patience);
    [[nodiscard]] AsyncMetrics metrics() const;

    /// Engine::save and Engine::load on the decoding thread: rounds wait for the file. What they throw comes through
    /// the future, which a callback must not wait for. Throw RequestRefused after `stop`.
    std::future<std::int64_t> save(std::vector<TokenId> tokens, std::filesystem::path file);
    std::future<std::vector<TokenId>> load(std::filesystem::path file);

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace outrider
