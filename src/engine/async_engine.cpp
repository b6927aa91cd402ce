#include <outrider/engine/async_engine.hpp>

#include <functional>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/decode/async_decoder.hpp>

namespace outrider {
namespace {

// Caches grow by half, so that up to a half of one stands empty: each token counts for one and a half. While one grows,
// its old content stands beside the new: of what it counts for, two thirds more.
AsyncOptions async_options(const AsyncEngineOptions& options, const LlamaModel& model) {
    if (options.memory == 0) return {.queue = options.queue};
    KvCache cache = model.make_pass()->make_cache();
    cache.reserve(1);
    const std::size_t each = cache.bytes() * 3 / 2, token = each / static_cast<std::size_t>(cache.capacity());
    require(options.memory >= each, ErrorKind::out_of_memory,
            "AsyncEngine: {} bytes of memory for KV caches, and the smallest cache takes {}; give more", options.memory,
            each);
    return {.queue = options.queue,
            .tokens = static_cast<std::int64_t>(options.memory / token),
            .least = cache.capacity(),
            .growing = 2.0 / 3.0};
}

}  // namespace

struct AsyncEngine::State {
    State(Engine opened, const AsyncEngineOptions& options)
        : engine(std::move(opened)),
          bounds(async_options(options, engine.model())),
          decoder(std::ref(engine.decoder()), bounds) {}

    Engine engine;
    AsyncOptions bounds;
    AsyncDecoder<std::reference_wrapper<AnyDecoder>> decoder;
};

AsyncEngine AsyncEngine::open(EngineOptions options, AsyncEngineOptions async) {
    return AsyncEngine(Engine::open(std::move(options)), async);
}

AsyncEngine::AsyncEngine(Engine engine, AsyncEngineOptions async)
    : state_(std::make_unique<State>(std::move(engine), async)) {}
AsyncEngine::AsyncEngine(AsyncEngine&&) noexcept = default;
AsyncEngine& AsyncEngine::operator=(AsyncEngine&&) noexcept = default;
AsyncEngine::~AsyncEngine() = default;

const LlamaModel& AsyncEngine::model() const noexcept { return state_->engine.model(); }
const std::string& AsyncEngine::drafter() const noexcept { return state_->engine.drafter(); }
std::int64_t AsyncEngine::tokens() const noexcept { return state_->bounds.tokens; }

std::future<GenerationResult> AsyncEngine::submit(Prompt prompt, GenerationOptions options, AsyncRequest request) {
    return state_->decoder.submit(std::move(prompt), std::move(options), std::move(request));
}

void AsyncEngine::close() { state_->decoder.close(); }
void AsyncEngine::stop() { state_->decoder.stop(); }
bool AsyncEngine::wait_idle(std::chrono::nanoseconds patience) { return state_->decoder.wait_idle(patience); }
AsyncMetrics AsyncEngine::metrics() const { return state_->decoder.metrics(); }

std::future<std::int64_t> AsyncEngine::save(std::vector<TokenId> tokens, std::filesystem::path file) {
    return state_->decoder.between_rounds([engine = &state_->engine, tokens = std::move(tokens),
                                           file = std::move(file)](AnyDecoder&) { return engine->save(tokens, file); });
}

std::future<std::vector<TokenId>> AsyncEngine::load(std::filesystem::path file) {
    return state_->decoder.between_rounds(
        [engine = &state_->engine, file = std::move(file)](AnyDecoder&) { return engine->load(file); });
}

}  // namespace outrider
