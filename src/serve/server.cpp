#include "serve/server.hpp"

#include <fmt/format.h>
#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>

#include "serve/answer.hpp"
#include "serve/api_error.hpp"
#include "serve/api_logprobs.hpp"
#include "serve/api_response.hpp"
#include "serve/connection.hpp"
#include "serve/http_server.hpp"
#include "serve/secret.hpp"

namespace outrider::serve {
namespace {

using namespace std::chrono_literals;
constexpr const char* kJson = "application/json";
constexpr std::array<std::pair<const char*, Endpoint>, 2> kEndpoints{
    {{"/v1/chat/completions", Endpoint::chat}, {"/v1/completions", Endpoint::text}}};
constexpr std::array<std::string_view, 3> kPages{"/health", "/v1/models", "/metrics"};
constexpr auto kLook = 50ms;  // between two looks at whether a client is still there

/// Nobody is left to answer.
struct ClientGone {};

ApiError api_error(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const ApiError& known) {
        return known;
    } catch (const RequestRefused& refused) {
        switch (refused.why()) {
            case Refusal::queue_full: return {429, "queue_full", refused.what()};
            case Refusal::too_large: return {413, "insufficient_memory", refused.what()};
            case Refusal::closed: return {503, "shutting_down", "the server is shutting down"};
        }
        return {500, "internal", refused.what()};
    } catch (const Error& ours) {
        if (ours.kind() == ErrorKind::bad_request) return {400, "invalid_value", ours.what()};
        if (ours.kind() == ErrorKind::not_supported) return {400, "unsupported_parameter", ours.what()};
        return {500, "internal", ours.what()};
    } catch (const std::exception& other) {
        return {500, "internal", other.what()};
    } catch (...) {
        return {500, "internal", "an unknown exception"};
    }
}

/// What is wrong with a choice that did not come to its own end; nullopt: nothing.
std::optional<ApiError> trouble(const GenerationResult& result) {
    switch (result.finish) {
        case FinishReason::stop:
        case FinishReason::length: return std::nullopt;
        case FinishReason::deadline: return ApiError{504, "timeout", "the text was not finished in time"};
        case FinishReason::failed: return api_error(result.exception);
        default: return ApiError{503, "shutting_down", "the server is shutting down"};
    }
}

void respond(httplib::Response& response, const ApiError& error) {
    response.status = error.status();
    if (!Connection::current().whole()) response.set_header("Connection", "close");  // what is unread is no request
    response.set_content(error.body().dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), kJson);
}

ApiError too_large(std::size_t most) {
    return {413, "request_too_large",
            fmt::format("the body is larger than {} bytes; send less, or raise --max-body", most)};
}

ApiError too_slow() { return {408, "timeout", "the request did not arrive in time; send it faster"}; }

bool has_body(const httplib::Request& request) {
    return request.has_header("Content-Length") || request.has_header("Transfer-Encoding");
}

ConnectionLimits limits_of(const ServerOptions& options) {
    ConnectionLimits limits;
    limits.head = options.max_head;
    limits.body = 2 * options.max_body + options.max_head;  // the marks of chunks are counted
    limits.stalled = options.socket_time;
    limits.arrival = options.arrival_time;
    limits.answer = options.request_time + options.socket_time;
    return limits;
}

/// Not SO_REUSEPORT, with which a second server would take half of the first one's connections.
void reuse_address(int socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
}

bool is_loopback(std::string_view host) { return host == "127.0.0.1" || host == "::1" || host == "localhost"; }

bool names_this_machine(std::string host) {
    if (const std::size_t colon = host.rfind(':'); colon != std::string::npos && host.back() != ']') host.resize(colon);
    return host == "localhost" || host == "127.0.0.1" || host == "[::1]";
}

/// Counts an answer while it lives.
class Counted {
public:
    explicit Counted(std::atomic<int>& count) : count_(count) { ++count_; }
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
    ~Counted() { --count_; }

private:
    std::atomic<int>& count_;
};

/// One streamed answer: what is sent, event by event.
class Stream {
public:
    Stream(std::atomic<int>& open, std::unique_ptr<Answer> answer, AnswerHead head, const ApiRequest& request,
           AnswerEvent first, const TokenNames& names)
        : open_(open), answer_(std::move(answer)), head_(std::move(head)), n_(request.n), usage_(request.stream_usage) {
        results_.resize(answer_->choices());
        if (const auto top = request.generation.logprobs)
            logprobs_.assign(results_.size(), LogprobWriter(head_.endpoint, *top, names));
        if (head_.endpoint == Endpoint::chat)
            for (std::size_t i = 0; i < results_.size(); ++i) out_ += event(first_piece(head_, i));
        take(std::move(first));
    }

    /// Writes what there is, or waits for a while. False where the client has left.
    bool write(httplib::DataSink& sink) {
        if (out_.empty())
            if (auto next = answer_->next(kLook)) take(std::move(*next));
        while (out_.size() < 16384) {
            auto next = answer_->next(0ms);
            if (!next) break;
            take(std::move(*next));
        }
        if (out_.empty()) return sink.is_writable();
        const std::string piece = std::exchange(out_, {});
        if (!sink.write(piece.data(), piece.size())) return false;
        if (ended_) sink.done();
        return true;
    }

private:
    void take(AnswerEvent news) {
        if (ended_) return;
        if (!news.result) {
            nlohmann::ordered_json logprobs;
            if (news.token != kNoToken) {
                logprobs_[news.choice].push(news.token, std::move(news.logprobs));
                logprobs = logprobs_[news.choice].take(news.text);
            }
            if (!news.text.empty() || !logprobs.is_null())
                out_ += event(text_piece(head_, news.choice, news.text, std::move(logprobs)));
            return;
        }
        if (const auto error = trouble(*news.result)) {
            out_ += event(error->body());
            end();
            return;
        }
        out_ += event(last_piece(head_, news.choice, news.result->finish));
        results_[news.choice] = std::move(*news.result);
        if (++finished_ < results_.size()) return;
        if (usage_) out_ += event(usage_piece(head_, summed(results_, n_)));
        end();
    }

    void end() {
        out_ += "data: [DONE]\n\n";
        ended_ = true;
    }

    Counted open_;
    std::unique_ptr<Answer> answer_;
    AnswerHead head_;
    std::int64_t n_;
    bool usage_, ended_ = false;
    std::string out_;
    std::vector<GenerationResult> results_;
    std::vector<LogprobWriter> logprobs_;  ///< of each choice, where they are asked for
    std::size_t finished_ = 0;
};

/// What the API says of the tokens of finished texts.
std::vector<nlohmann::ordered_json> logprobs_of(const ApiRequest& request, const std::vector<GenerationResult>& results,
                                                const TokenNames& names) {
    std::vector<nlohmann::ordered_json> all;
    if (!request.generation.logprobs) return all;
    for (const GenerationResult& result : results) {
        LogprobWriter writer(request.endpoint, *request.generation.logprobs, names);
        for (std::size_t i = 0; i < result.tokens.size(); ++i) writer.push(result.tokens[i], result.logprobs[i]);
        all.push_back(writer.take(result.text));
    }
    return all;
}

}  // namespace

struct Server::State {
    State(Served& what, ServerOptions chosen) : served(what), options(std::move(chosen)) {}

    void set_up();
    void route();
    void admit(const httplib::Request& request) const;
    void check_client(const httplib::Request& request) const;
    void check_body(const httplib::Request& request) const;
    [[nodiscard]] std::string body_of(const httplib::ContentReader& reader) const;

    void models(httplib::Response& response);
    void complete(Endpoint endpoint, const std::string& body, httplib::Response& response);
    std::vector<Prompt> prompts_of(const ApiRequest& request) const;
    TokenNames names() const {
        return [&source = served](TokenId token) { return source.name(token); };
    }

    Served& served;
    ServerOptions options;
    HttpServer http{limits_of(options), options.connections};
    std::int64_t started = static_cast<std::int64_t>(std::time(nullptr));
    int port = 0;
    std::atomic<bool> ended = false;
    std::atomic<int> open = 0;  ///< answers
};

void Server::State::set_up() {
    http.set_socket_options(reuse_address);
    http.set_tcp_nodelay(true);
    http.set_payload_max_length(options.max_body);
    // Before anything of a body is read.
    http.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response&) {
        admit(request);
        Connection& connection = Connection::current();
        if (has_body(request))
            connection.begin_body();
        else
            connection.end_request();
        return httplib::Server::HandlerResponse::Unhandled;
    });
    http.set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr error) {
        respond(response, api_error(error));
    });
    http.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
        if (response.body.empty())
            respond(response, ApiError(response.status, "bad_request",
                                       fmt::format("{} {} was not understood", request.method, request.path)));
    });
    route();
}

void Server::State::route() {
    http.Get("/health", [](const httplib::Request&, httplib::Response& response) {
        response.set_content(R"({"status":"ok"})", kJson);
    });
    http.Get("/v1/models", [this](const httplib::Request&, httplib::Response& response) { models(response); });
    http.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
        response.set_content(metrics_text(served.metrics()), "text/plain; version=0.0.4");
    });
    for (const auto& [path, endpoint] : kEndpoints)
        http.Post(path, [this, endpoint = endpoint](const httplib::Request&, httplib::Response& response,
                                                    const httplib::ContentReader& reader) {
            try {
                complete(endpoint, body_of(reader), response);
            } catch (const ClientGone&) {
                response.status = 499;  // for the record: nobody reads it
            }
        });
}

/// Throws ApiError for a request that is refused whatever its body says.
void Server::State::admit(const httplib::Request& request) const {
    const bool reads = request.method == "GET" || request.method == "HEAD";
    if (!(reads && request.path == "/health")) check_client(request);
    const bool completes = std::ranges::any_of(kEndpoints, [&](const auto& one) { return request.path == one.first; });
    if (completes ? request.method != "POST" : !reads || std::ranges::find(kPages, request.path) == kPages.end())
        throw ApiError(404, "not_found", fmt::format("there is nothing at {} {}", request.method, request.path));
    if (completes) check_body(request);
}

void Server::State::check_body(const httplib::Request& request) const {
    if (!request.get_header_value("Content-Type").starts_with(kJson))
        throw ApiError(415, "unsupported_media_type", "send the body as Content-Type: application/json");
    if (request.has_header("Content-Encoding"))
        throw ApiError(415, "unsupported_media_type", "the body is compressed; send it without a Content-Encoding");
    const bool chunked = request.has_header("Transfer-Encoding");
    if (chunked == request.has_header("Content-Length") || request.get_header_value_count("Content-Length") > 1)
        throw ApiError(chunked ? 400 : 411, "bad_request",
                       "the length of the body is not clear; send one Content-Length, or chunks");
    if (chunked && request.get_header_value("Transfer-Encoding") != "chunked")
        throw ApiError(501, "bad_request", "of Transfer-Encoding, chunked alone is known here");
    if (!chunked && std::strtoull(request.get_header_value("Content-Length").c_str(), nullptr, 10) > options.max_body)
        throw too_large(options.max_body);
}

std::string Server::State::body_of(const httplib::ContentReader& reader) const {
    std::string body;
    const bool whole = reader([&](const char* bytes, std::size_t size) {
        if (size > options.max_body - body.size()) throw too_large(options.max_body);
        body.append(bytes, size);
        return true;
    });
    Connection& connection = Connection::current();
    if (connection.fault() == Connection::Fault::long_body) throw too_large(options.max_body);
    if (connection.fault() == Connection::Fault::slow) throw too_slow();
    if (!whole) throw ApiError(400, "bad_request", "the body ended before its length, or its chunks are none");
    connection.end_request();
    return body;
}

void Server::State::check_client(const httplib::Request& request) const {
    if (options.key.empty()) {
        if (is_loopback(options.host) && !names_this_machine(request.get_header_value("Host")))
            throw ApiError(403, "wrong_host", "the Host of the request is not this machine");
        return;
    }
    const std::string header = request.get_header_value("Authorization");
    const std::string given = header.starts_with("Bearer ") ? header.substr(7) : std::string();
    if (!same_secret(given, options.key))
        throw ApiError(401, "invalid_api_key", "give the server's key as Authorization: Bearer KEY");
}

void Server::State::models(httplib::Response& response) {
    const nlohmann::ordered_json one = {
        {"id", options.model}, {"object", "model"}, {"created", started}, {"owned_by", "outrider"}};
    const nlohmann::ordered_json list = {{"object", "list"}, {"data", {one}}};
    response.set_content(list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), kJson);
}

std::vector<Prompt> Server::State::prompts_of(const ApiRequest& request) const {
    std::vector<Prompt> prompts;
    if (request.endpoint == Endpoint::chat) prompts.push_back(served.chat(request.chat));
    for (const auto& each : request.prompts) {
        const auto* text = std::get_if<std::string>(&each);
        prompts.push_back(served.text(text ? *text : "0"));  // ids: for its end tokens and its detokenizer
        if (!text) prompts.back().tokens = std::get<std::vector<TokenId>>(each);
    }
    const std::int64_t context = served.context();
    for (const Prompt& prompt : prompts)
        if (std::ssize(prompt.tokens) >= context)
            throw ApiError(400, "context_length_exceeded",
                           fmt::format("the prompt has {} tokens and the model holds {}, prompt and text together",
                                       prompt.tokens.size(), context),
                           request.endpoint == Endpoint::chat ? "messages" : "prompt");
    return prompts;
}

void Server::State::complete(Endpoint endpoint, const std::string& body, httplib::Response& response) {
    const Counted counted(open);
    ApiRequest wanted = parse_request(endpoint, body, options.limits);
    if (!wanted.model.empty() && wanted.model != options.model)
        throw ApiError(404, "model_not_found",
                       fmt::format("there is no model '{}' here; this is '{}'", wanted.model, options.model), "model");
    if (!wanted.schema.empty()) wanted.generation.constraint = served.json(wanted.schema);
    auto answer = std::make_unique<Answer>(served, prompts_of(wanted), wanted.generation, wanted.n,
                                           options.request_time, wanted.stream);
    AnswerHead head = answer_head(endpoint, options.model, static_cast<std::int64_t>(std::time(nullptr)));
    const Connection& connection = Connection::current();
    const auto wait = [&] {
        while (true) {
            if (auto event = answer->next(kLook)) return *std::move(event);
            if (connection.gone()) throw ClientGone();
        }
    };
    std::vector<GenerationResult> results(answer->choices());
    for (std::size_t finished = 0; finished < results.size();) {
        AnswerEvent event = wait();
        if (event.result)
            if (const auto error = trouble(*event.result)) throw ApiError(*error);
        if (wanted.stream) {  // what fails at once has failed by now, and has a status of its own
            auto stream =
                std::make_shared<Stream>(open, std::move(answer), std::move(head), wanted, std::move(event), names());
            response.set_chunked_content_provider(
                "text/event-stream", [stream](std::size_t, httplib::DataSink& sink) { return stream->write(sink); });
            return;
        }
        if (!event.result) continue;
        results[event.choice] = *std::move(event.result);
        ++finished;
    }
    const auto whole = whole_answer(head, results, wanted.n, logprobs_of(wanted, results, names()));
    response.set_content(whole.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), kJson);
}

Server::Server(Served& served, ServerOptions options) : state_(std::make_unique<State>(served, std::move(options))) {
    state_->set_up();
    const std::string& host = state_->options.host;
    const int port = state_->options.port;
    state_->port = port == 0 ? state_->http.bind_to_any_port(host) : state_->http.bind_to_port(host, port) ? port : -1;
    require(state_->port > 0, "the server cannot listen at {}, port {}; is another program there?", host, port);
}

Server::~Server() = default;
int Server::port() const noexcept { return state_->port; }

void Server::run() {
    const bool served = state_->http.listen_after_bind();
    state_->ended = true;
    require(served, ErrorKind::internal, "the server stopped listening: the system takes no more connections");
}

void Server::stop() {
    while (!state_->http.is_running() && !state_->ended) std::this_thread::sleep_for(1ms);  // it is about to
    const auto end = std::chrono::steady_clock::now() + state_->options.end_time;
    while (state_->open > 0 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(1ms);
    state_->http.stop();  // which cuts streams short
}

}  // namespace outrider::serve
