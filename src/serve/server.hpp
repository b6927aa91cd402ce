// The HTTP server: OpenAI's completions. What decodes them is behind Served.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "serve/api_request.hpp"
#include "serve/served.hpp"

namespace outrider::serve {

struct ServerOptions {
    std::string host = "127.0.0.1";
    int port = 8080;       ///< 0: any that is free
    std::string key = {};  ///< that clients must present; empty: none
    std::string model;     ///< the name that clients know it by
    RequestLimits limits = {};
    std::size_t max_head = std::size_t{64} << 10;    ///< bytes of a request's first line and headers
    std::size_t max_body = std::size_t{4} << 20;     ///< bytes, in chunks or not
    std::chrono::milliseconds arrival_time{20'000};  ///< from a request's first byte to its last
    std::chrono::seconds request_time{600};          ///< from a request's arrival to the end of its text
    std::chrono::seconds socket_time{10};            ///< for a read or a write that makes no progress
    std::chrono::seconds end_time{5};                ///< that answers get to be written once the server is stopped
    std::size_t connections = 64;                    ///< served beside each other; four times as many wait
};

/// POST /v1/chat/completions and /v1/completions; GET /v1/models, /health and /metrics. /health alone needs no key.
/// Without a key, a server at a loopback address asks that requests name this machine as their host, so that no page in
/// a browser reaches it under a name of its own. What a request may take is bounded before its key is known, and no
/// body is read before it is.
class Server {
public:
    /// `served` lives longer. Throws Error for a place that cannot be listened at.
    Server(Served& served, ServerOptions options);
    ~Server();

    [[nodiscard]] int port() const noexcept;

    /// Serves until `stop`, and until the last answer has ended.
    void run();
    /// From any thread. Answers that are being written get `end_time`: end their texts first. Then no more connections
    /// are taken.
    void stop();

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace outrider::serve
