#include "outrider_c.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/decode/detail/async_queue.hpp>
#include <outrider/engine/async_engine.hpp>
#include <outrider/text/chat_template.hpp>

#include "engine/prompt_stream.hpp"
#include "text/grammar/schema_constraints.hpp"

using namespace outrider;

/// Shared with the decoding thread until the request has ended.
struct RequestState {
    std::mutex mutex;
    std::condition_variable news;
    std::optional<GenerationResult> result;
    std::stop_source stop;

    /// Whoever waits must hear of it: where memory is too short for the result, the request has failed for that.
    void end(const GenerationResult& ended) noexcept {
        const std::scoped_lock lock(mutex);
        try {
            result = ended;
        } catch (...) {
            result = outrider::detail::failure(std::current_exception());
        }
        news.notify_all();
    }
};

struct outrider_request {
    std::shared_ptr<RequestState> state = std::make_shared<RequestState>();
};

struct outrider_engine {
    explicit outrider_engine(AsyncEngine opened)
        : engine(std::move(opened)), schemas(engine.model().tokenizer(), engine.model().config().vocabulary) {}

    AsyncEngine engine;
    outrider::detail::SchemaConstraints schemas;
};

namespace {

thread_local std::string last_error;

outrider_status status_of(const std::exception_ptr& error) noexcept {
    try {
        std::rethrow_exception(error);
    } catch (const RequestRefused& refused) {
        if (refused.why() == Refusal::queue_full) return OUTRIDER_BUSY;
        return refused.why() == Refusal::too_large ? OUTRIDER_OUT_OF_MEMORY : OUTRIDER_BAD_REQUEST;
    } catch (const Error& ours) {
        switch (ours.kind()) {
            case ErrorKind::bad_request: return OUTRIDER_BAD_REQUEST;
            case ErrorKind::damaged_file: return OUTRIDER_DAMAGED_FILE;
            case ErrorKind::not_supported: return OUTRIDER_NOT_SUPPORTED;
            case ErrorKind::mismatched_drafter: return OUTRIDER_MISMATCHED_DRAFTER;
            case ErrorKind::out_of_memory: return OUTRIDER_OUT_OF_MEMORY;
            case ErrorKind::internal: return OUTRIDER_INTERNAL;
        }
        return OUTRIDER_INTERNAL;
    } catch (const std::bad_alloc&) {
        return OUTRIDER_OUT_OF_MEMORY;
    } catch (...) {
        return OUTRIDER_INTERNAL;
    }
}

/// Nothing leaves as an exception: body() as a status, what it throws as the last error.
template <typename Body>
outrider_status guarded(Body&& body) noexcept {
    try {
        return body();
    } catch (...) {
        const std::exception_ptr error = std::current_exception();
        try {
            last_error = "an exception that is not a std::exception";
            std::rethrow_exception(error);
        } catch (const std::exception& told) {
            try {
                last_error = told.what();
            } catch (...) {  // no memory even for that
                last_error.clear();
            }
        } catch (...) {
        }
        return status_of(error);
    }
}

/// Sizes beyond any structure of a later version come from memory that was never initialised.
void check_size(size_t size, const char* name) {
    constexpr size_t kMost = 4096;
    require(size >= sizeof(size_t) && size <= kMost,
            "{} says that its size is {}, expected at most {}; call its init function first, or set its size", name,
            size, kMost);
}

/// A structure of the caller's age in this library's form: fields that it does not have keep their defaults, fields
/// that are not known here must ask for nothing.
template <typename T>
T read_struct(const T* given, const T& defaults, const char* name) {
    T known = defaults;
    if (!given) return known;
    check_size(given->size, name);
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    for (size_t i = sizeof(T); i < given->size; ++i)
        require(bytes[i] == 0, ErrorKind::not_supported,
                "a structure of {} bytes sets a field that this library, of version {}, does not know", given->size,
                OUTRIDER_C_VERSION);
    std::memcpy(&known, given, std::min(given->size, sizeof(T)));
    return known;
}

template <typename T>
void write_struct(T* out, T value, size_t size) {
    value.size = size;
    std::memcpy(out, &value, std::min(size, sizeof(T)));
    if (size > sizeof(T)) std::memset(reinterpret_cast<unsigned char*>(out) + sizeof(T), 0, size - sizeof(T));
}

outrider_engine_options engine_defaults() {
    outrider_engine_options options{};
    options.size = sizeof options;
    options.nodes = kAutoNodes, options.max_batch = 8, options.queue = 256;
    return options;
}

outrider_generation_options generation_defaults() {
    const GenerationOptions defaults;
    outrider_generation_options options{};
    options.size = sizeof options;
    options.max_tokens = defaults.max_tokens, options.top_p = defaults.top_p;
    options.repetition_penalty = defaults.repetition_penalty;
    return options;
}

const char* or_empty(const char* text) { return text ? text : ""; }

AsyncEngine open_engine(const outrider_engine_options& given) {
    EngineOptions options{.model = given.model, .drafter = or_empty(given.drafter)};
    if (given.drafters) options.drafter_places = {given.drafters};
    options.target.chat_template = or_empty(given.chat_template);
    options.target.threads = given.threads;
    options.pass_times_file = or_empty(given.pass_times_file);
    options.decoder = {.nodes = given.nodes, .max_batch = given.max_batch};
    options.kept_bytes = given.kept_bytes;
    return AsyncEngine::open(std::move(options), {.queue = given.queue, .memory = given.memory});
}

Prompt prompt_of(const LlamaModel& model, outrider_prompt kind, std::string_view text) {
    switch (kind) {
        case OUTRIDER_PROMPT_USER: return model.chat(text);
        case OUTRIDER_PROMPT_CHAT: {
            const Chat chat = Chat::from_json(text);
            return model.chat(chat.messages, chat.variables);
        }
        case OUTRIDER_PROMPT_TEXT: return model.raw(text);
    }
    fail("the kind of prompt is {}, expected one of outrider_prompt", static_cast<int>(kind));
}

GenerationOptions options_of(const outrider_generation_options& given, const Prompt& prompt) {
    GenerationOptions options;
    options.max_tokens = given.max_tokens, options.temperature = given.temperature;
    options.top_p = given.top_p, options.top_k = given.top_k, options.min_p = given.min_p;
    options.repetition_penalty = given.repetition_penalty;
    if (given.has_seed) options.seed = given.seed;
    options.stream = outrider::detail::prompt_stream(prompt, given.choice);
    require(given.stops == 0 || given.stop, "outrider_generation_options: {} stop strings and no list of them",
            given.stops);
    for (size_t i = 0; i < given.stops; ++i) options.stop.emplace_back(or_empty(given.stop[i]));
    return options;
}

outrider_finish finish_of(FinishReason finish) {
    switch (finish) {
        case FinishReason::stop: return OUTRIDER_FINISH_STOP;
        case FinishReason::length: return OUTRIDER_FINISH_LENGTH;
        case FinishReason::deadline: return OUTRIDER_FINISH_DEADLINE;
        case FinishReason::failed: return OUTRIDER_FINISH_FAILED;
        default: return OUTRIDER_FINISH_CANCELLED;
    }
}

outrider_result result_of(const GenerationResult& ended) {
    outrider_result result{};
    result.text = ended.text.c_str(), result.text_bytes = ended.text.size();
    result.tokens = ended.tokens.data(), result.token_count = ended.tokens.size();
    result.error = ended.error.c_str();
    result.finish = finish_of(ended.finish);
    result.seed = ended.seed;
    result.prompt_tokens = ended.stats.prompt_tokens, result.resumed = ended.stats.resumed;
    result.drafted = ended.stats.drafted, result.accepted = ended.stats.accepted;
    result.rounds = ended.stats.rounds;
    result.prefill_seconds = ended.stats.seconds.prefill;
    result.decoding_seconds = ended.stats.seconds.decoding();
    return result;
}

AsyncRequest request_of(const outrider_generation_options& options, std::shared_ptr<RequestState> state,
                        outrider_text_callback callback, void* user) {
    AsyncRequest request;
    if (callback)
        request.sink = [callback, user](std::string_view text) {
            return callback(user, text.data(), text.size()) == 0;
        };
    request.stop = state->stop.get_token();
    require(options.deadline_ms >= 0, "outrider_generation_options: deadline_ms is {}, expected at least 0",
            options.deadline_ms);
    if (options.deadline_ms > 0) {
        constexpr std::int64_t kYear = std::int64_t{365} * 24 * 3600 * 1000;
        request.deadline =
            std::chrono::steady_clock::now() + std::chrono::milliseconds(std::min(options.deadline_ms, kYear));
    }
    request.priority = options.priority;
    request.ended = [state = std::move(state)](const GenerationResult& result) { state->end(result); };
    return request;
}

std::unique_ptr<outrider_request> submit(outrider_engine* engine, outrider_prompt kind, const char* text, size_t bytes,
                                         const outrider_generation_options* options, outrider_text_callback callback,
                                         void* user) {
    require(engine && (text || bytes == 0), "outrider_submit: the engine or the text is NULL");
    const auto known = read_struct(options, generation_defaults(), "outrider_generation_options");
    Prompt prompt = prompt_of(engine->engine.model(), kind, {text ? text : "", bytes});
    GenerationOptions generation = options_of(known, prompt);
    if (known.json_schema) generation.constraint = engine->schemas.of(known.json_schema);
    auto request = std::make_unique<outrider_request>();
    (void)engine->engine.submit(std::move(prompt), std::move(generation),
                                request_of(known, request->state, callback, user));
    return request;
}

outrider_status wait(outrider_request& request, int64_t milliseconds, outrider_result* out) {
    RequestState& state = *request.state;
    std::unique_lock lock(state.mutex);
    const auto ended = [&] { return state.result.has_value(); };
    if (milliseconds < 0)
        state.news.wait(lock, ended);
    else if (!state.news.wait_for(lock, std::chrono::milliseconds(std::min<int64_t>(milliseconds, 1'000'000'000)),
                                  ended))
        return OUTRIDER_PENDING;
    if (out) write_struct(out, result_of(*state.result), out->size);
    if (state.result->exception) std::rethrow_exception(state.result->exception);
    return OUTRIDER_OK;
}

}  // namespace

uint32_t outrider_c_version(void) { return OUTRIDER_C_VERSION; }

const char* outrider_last_error(void) { return last_error.c_str(); }

void outrider_engine_options_init(outrider_engine_options* options, size_t size) {
    if (options) write_struct(options, engine_defaults(), size);
}

void outrider_generation_options_init(outrider_generation_options* options, size_t size) {
    if (options) write_struct(options, generation_defaults(), size);
}

outrider_status outrider_open(const outrider_engine_options* options, outrider_engine** engine) {
    return guarded([&] {
        require(options && engine, "outrider_open: the options or the place for the engine are NULL");
        *engine = nullptr;
        const auto known = read_struct(options, engine_defaults(), "outrider_engine_options");
        require(known.model, "outrider_open: no model; expected a GGUF file or a Hugging Face folder");
        *engine = new outrider_engine(open_engine(known));
        return OUTRIDER_OK;
    });
}

void outrider_close(outrider_engine* engine) { delete engine; }

outrider_status outrider_submit(outrider_engine* engine, outrider_prompt kind, const char* text, size_t bytes,
                                const outrider_generation_options* options, outrider_text_callback callback, void* user,
                                outrider_request** request) {
    return guarded([&] {
        require(request, "outrider_submit: the place for the request is NULL");
        *request = nullptr;
        *request = submit(engine, kind, text, bytes, options, callback, user).release();
        return OUTRIDER_OK;
    });
}

outrider_status outrider_generate(outrider_engine* engine, outrider_prompt kind, const char* text, size_t bytes,
                                  const outrider_generation_options* options, outrider_text_callback callback,
                                  void* user, outrider_request** request) {
    return guarded([&] {
        require(request, "outrider_generate: the place for the request is NULL");
        *request = nullptr;
        auto own = submit(engine, kind, text, bytes, options, callback, user);
        (void)wait(*own, -1, nullptr);
        *request = own.release();
        return OUTRIDER_OK;
    });
}

outrider_status outrider_wait(outrider_request* request, int64_t milliseconds, outrider_result* result) {
    return guarded([&] {
        require(request, "outrider_wait: the request is NULL");
        if (result) check_size(result->size, "outrider_result");
        return wait(*request, milliseconds, result);
    });
}

void outrider_cancel(outrider_request* request) {
    if (request) request->state->stop.request_stop();
}

void outrider_request_free(outrider_request* request) {
    if (!request) return;
    outrider_cancel(request);
    (void)outrider_wait(request, -1, nullptr);
    delete request;
}

outrider_status outrider_save(outrider_engine* engine, outrider_prompt kind, const char* text, size_t bytes,
                              const char* file, int64_t* tokens) {
    return guarded([&] {
        require(engine && file && (text || bytes == 0), "outrider_save: the engine, the text or the file is NULL");
        Prompt prompt = prompt_of(engine->engine.model(), kind, {text ? text : "", bytes});
        const int64_t saved = engine->engine.save(std::move(prompt.tokens), file).get();
        if (tokens) *tokens = saved;
        return OUTRIDER_OK;
    });
}

outrider_status outrider_load(outrider_engine* engine, const char* file, int64_t* tokens) {
    return guarded([&] {
        require(engine && file, "outrider_load: the engine or the file is NULL");
        const auto loaded = static_cast<int64_t>(engine->engine.load(file).get().size());
        if (tokens) *tokens = loaded;
        return OUTRIDER_OK;
    });
}

outrider_status outrider_get_stats(outrider_engine* engine, outrider_stats* stats) {
    return guarded([&] {
        require(engine && stats, "outrider_get_stats: the engine or the place for the stats is NULL");
        check_size(stats->size, "outrider_stats");
        const AsyncMetrics now = engine->engine.metrics();
        outrider_stats told{};
        told.submitted = now.submitted, told.refused = now.refused, told.stopped = now.stopped;
        told.length = now.length, told.cancelled = now.cancelled, told.deadline = now.deadline;
        told.failed = now.failed;
        told.queued = static_cast<int64_t>(now.queued), told.active = static_cast<int64_t>(now.active);
        told.prompt_tokens = now.decoded.prompt_tokens, told.tokens = now.decoded.tokens;
        told.rounds = now.decoded.rounds, told.drafted = now.decoded.drafted, told.accepted = now.decoded.accepted;
        write_struct(stats, told, stats->size);
        return OUTRIDER_OK;
    });
}
