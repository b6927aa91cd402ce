// A server whose texts come from a decoder without tensors, so that the sanitizers can run it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <outrider/decode/async_decoder.hpp>

#include "serve/constraints.hpp"
#include "serve/server.hpp"
#include "unit/decode/toy_decoder.hpp"

namespace outrider::test {

inline constexpr std::int64_t kToyMemory = 60'000;

inline const ToyDetokenizer& toy_detokenizer() {
    static const ToyDetokenizer text;
    return text;
}

inline std::vector<TokenId> tokens_of(std::string_view text) { return {text.begin(), text.end()}; }

/// The toy behind the server. A prompt's tokens are its characters.
class ToyServed : public serve::Served {
public:
    explicit ToyServed(std::size_t queue = 400) : decoder_(toy(), {.queue = queue, .tokens = kToyMemory}) {}

    [[nodiscard]] Prompt chat(const Chat& chat) const override { return text(chat.messages.back().content); }
    [[nodiscard]] Prompt text(std::string_view text) const override {
        if (text.starts_with("broken")) return {{ToyDecoder::kBreaks}};
        if (text.starts_with("refused")) return {{ToyDecoder::kBadPrompt}};
        return {tokens_of(text)};
    }
    [[nodiscard]] std::int64_t context() const override { return ToyDecoder::kContext; }
    [[nodiscard]] serve::TokenName name(TokenId token) const override { return {toy_detokenizer().bytes(token), {}}; }
    [[nodiscard]] std::shared_ptr<const Constraint> json(const std::string& schema) override {
        return constraints_.of(schema);
    }
    void submit(Prompt prompt, GenerationOptions options, AsyncRequest request) override {
        (void)decoder_.submit(std::move(prompt), std::move(options), std::move(request));
    }
    [[nodiscard]] AsyncMetrics metrics() const override { return decoder_.metrics(); }
    void stop() { decoder_.stop(); }
    bool wait_idle() { return decoder_.wait_idle(std::chrono::seconds(60)); }

private:
    static ToyDecoder toy() {
        ToyDecoder toy{8};
        toy.pause = std::chrono::microseconds(20);
        return toy;
    }
    serve::Constraints constraints_{toy_detokenizer(), kToyVocabulary};
    AsyncDecoder<ToyDecoder> decoder_;
};

/// A server that runs while it lives.
template <typename Served = ToyServed>
class ToyServer {
public:
    /// `served`: arguments of the Served.
    template <typename... Args>
    explicit ToyServer(serve::ServerOptions options, Args&&... served_by)
        : served(std::forward<Args>(served_by)...), server_(served, std::move(options)) {
        thread_ = std::thread([this] { server_.run(); });
    }
    ToyServer() : ToyServer(options()) {}
    ~ToyServer() {
        served.stop();
        server_.stop();
        thread_.join();
    }

    [[nodiscard]] static serve::ServerOptions options() {
        serve::ServerOptions options;
        options.port = 0, options.model = "toy", options.max_body = 50'000, options.connections = 24;
        options.end_time = std::chrono::seconds(60);
        return options;
    }
    [[nodiscard]] int port() const { return server_.port(); }

    Served served;

private:
    serve::Server server_;
    std::thread thread_;
};

inline nlohmann::json toy_ask(const std::string& content, std::int64_t tokens, bool stream) {
    return {{"messages", {{{"role", "user"}, {"content", content}}}}, {"max_tokens", tokens}, {"stream", stream}};
}

}  // namespace outrider::test
