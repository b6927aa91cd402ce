// outrider serve: OpenAI's completions over HTTP, until a signal.
#include <fmt/format.h>

#include "arguments.hpp"
#include "engine.hpp"
#include "output.hpp"

#ifdef OUTRIDER_SERVES

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <outrider/engine/async_engine.hpp>

#include "memory.hpp"
#include "serve/served_engine.hpp"
#include "serve/server.hpp"
#include "tree_choice.hpp"

namespace outrider::cli {
namespace {

using namespace std::chrono_literals;

/// The first line of the file, or the variable of the environment.
std::string read_key(const std::string& file) {
    if (file.empty()) {
        const char* key = std::getenv("OUTRIDER_API_KEY");
        return key ? key : "";
    }
    std::ifstream in(file, std::ios::binary);
    std::string key;
    std::getline(in, key);
    if (key.ends_with('\r')) key.pop_back();
    require(!key.empty(), "--api-key-file: '{}' cannot be read or begins with an empty line; expected the key there",
            file);
    return key;
}

bool is_loopback(const std::string& host) { return host == "localhost" || host == "127.0.0.1" || host == "::1"; }

/// SIGINT and SIGTERM, blocked from here on in this thread and those that it starts, so that one thread waits for them.
class Signals {
public:
    Signals() {
        sigemptyset(&set_);
        sigaddset(&set_, SIGINT);
        sigaddset(&set_, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    }

    /// Whether one comes within this time.
    [[nodiscard]] bool wait(std::chrono::milliseconds patience) const {
        const timespec time{patience.count() / 1000, patience.count() % 1000 * 1'000'000};
        return sigtimedwait(&set_, nullptr, &time) > 0;
    }

private:
    sigset_t set_{};
};

serve::ServerOptions server_options(const ServeArguments& arguments) {
    serve::ServerOptions options;
    options.host = arguments.host == "localhost" ? "127.0.0.1" : arguments.host;
    options.port = arguments.port;
    options.key = read_key(arguments.key_file);
    require(!options.key.empty() || arguments.open || is_loopback(arguments.host),
            "--host {} can be reached from other machines; give a key (--api-key-file, OUTRIDER_API_KEY), or --open",
            arguments.host);
    options.model = arguments.name;
    if (options.model.empty()) options.model = std::filesystem::path(arguments.model.path).stem().string();
    options.limits.defaults = arguments.decoding.generation;
    options.max_body = static_cast<std::size_t>(arguments.body) << 20;
    options.request_time = std::chrono::seconds(arguments.seconds);
    options.connections = static_cast<std::size_t>(arguments.connections);
    return options;
}

AsyncEngine open_engine(const ServeArguments& arguments) {
    const LlamaModel model = load_model(arguments.model);
    const std::string name = drafter_or_default(arguments.drafter, model);
    EngineOptions options = engine_options(name, arguments.model, arguments.decoding);
    options.pass_times_file = pass_times_file(arguments.decoding);
    if (model.device().is_cpu()) options.kept_bytes = static_cast<std::size_t>(arguments.keep) << 20;
    const ReturnMemory loading;
    Engine engine = Engine::open(model, options);
    check_tree(arguments.decoding.tree, engine.decoder().drafter().kind());
    return AsyncEngine(std::move(engine), {.queue = static_cast<std::size_t>(arguments.queue),
                                           .memory = static_cast<std::size_t>(arguments.memory) << 20});
}

}  // namespace

int run(const ServeArguments& arguments) {
    const serve::ServerOptions options = server_options(arguments);
    const Signals signals;
    AsyncEngine engine = open_engine(arguments);
    serve::ServedEngine service(engine);
    serve::Server server(service, options);
    tell(fmt::format("outrider: serving {} with {} at http://{}:{}/v1\n", options.model, engine.drafter(), options.host,
                     server.port()));
    std::exception_ptr error;
    std::atomic<bool> served = false;
    std::thread http([&] {
        try {
            server.run();
        } catch (...) {
            error = std::current_exception();
        }
        served = true;
    });
    while (!served && !signals.wait(200ms)) {
    }
    engine.close();
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(arguments.grace);
    while (!served && std::chrono::steady_clock::now() < end && !engine.wait_idle(0ms) && !signals.wait(50ms)) {
    }
    engine.stop();
    server.stop();
    http.join();
    if (error) std::rethrow_exception(error);
    return 0;
}

}  // namespace outrider::cli

#else

namespace outrider::cli {

int run(const ServeArguments&) {
    fail(ErrorKind::not_supported,
         "this outrider was built without cpp-httplib and cannot serve; install libcpp-httplib-dev and build it again");
}

}  // namespace outrider::cli

#endif
