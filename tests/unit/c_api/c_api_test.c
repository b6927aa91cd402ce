/* The C interface in the hands of a C program: c_api_test TINY_GGUF FOLDER */
#include <outrider_c.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                       \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            fprintf(stderr, "line %d: %s does not hold (%s)\n", __LINE__, #condition, outrider_last_error()); \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

static char seen[4096];

static int append(void* user, const char* text, size_t bytes) {
    int* calls = user;
    ++*calls;
    strncat(seen, text, bytes);
    return 0;
}

static int refuse(void* user, const char* text, size_t bytes) {
    (void)user, (void)text, (void)bytes;
    return 1;
}

static outrider_engine* open_tiny(const char* model, const char* drafter) {
    outrider_engine_options options;
    outrider_engine_options_init(&options, sizeof options);
    CHECK(options.size == sizeof options);
    CHECK(options.nodes == -1 && options.max_batch == 8 && options.queue == 256);
    options.model = model, options.drafter = drafter, options.chat_template = "chatml";
    options.threads = 1, options.nodes = 6;
    outrider_engine* engine = NULL;
    CHECK(outrider_open(&options, &engine) == OUTRIDER_OK);
    return engine;
}

/* What came of a request; it lives as long as the request. */
static outrider_result result_of(outrider_request* request) {
    outrider_result result;
    memset(&result, 0, sizeof result);
    result.size = sizeof result;
    CHECK(outrider_wait(request, 0, &result) == OUTRIDER_OK);
    return result;
}

/* The text of a request, which the caller frees. */
static char* text_of(outrider_engine* engine, const outrider_generation_options* generation) {
    outrider_request* request = NULL;
    CHECK(outrider_generate(engine, OUTRIDER_PROMPT_USER, "count", 5, generation, NULL, NULL, &request) == OUTRIDER_OK);
    const outrider_result result = result_of(request);
    char* copy = malloc(result.text_bytes + 1);
    memcpy(copy, result.text, result.text_bytes + 1);
    outrider_request_free(request);
    return copy;
}

static void texts_and_callbacks(outrider_engine* engine, outrider_engine* plain) {
    outrider_generation_options generation;
    outrider_generation_options_init(&generation, sizeof generation);
    generation.max_tokens = 30, generation.temperature = 0.8, generation.has_seed = 1, generation.seed = 4;
    char* expected = text_of(plain, &generation);
    int calls = 0;
    outrider_request* request = NULL;
    CHECK(outrider_submit(engine, OUTRIDER_PROMPT_USER, "count", 5, &generation, append, &calls, &request) ==
          OUTRIDER_OK);
    outrider_result result;
    memset(&result, 0, sizeof result);
    result.size = sizeof result;
    CHECK(outrider_wait(request, -1, &result) == OUTRIDER_OK);
    CHECK(strcmp(result.text, expected) == 0 && strcmp(seen, expected) == 0 && calls > 0);
    CHECK(result.token_count > 0 && result.token_count <= 30 && result.seed == 4 && result.prompt_tokens > 0);
    CHECK(result.error[0] == 0);
    outrider_request_free(request);
    CHECK(outrider_submit(engine, OUTRIDER_PROMPT_USER, "count", 5, &generation, refuse, NULL, &request) == OUTRIDER_OK);
    CHECK(outrider_wait(request, -1, &result) == OUTRIDER_OK);
    CHECK(result.finish == OUTRIDER_FINISH_CANCELLED);
    outrider_request_free(request);
    free(expected);
}

static void errors(outrider_engine* engine) {
    outrider_engine_options options;
    outrider_engine_options_init(&options, sizeof options);
    outrider_engine* none = NULL;
    CHECK(outrider_open(&options, &none) == OUTRIDER_BAD_REQUEST && none == NULL);
    CHECK(strstr(outrider_last_error(), "no model") != NULL);
    options.model = "/nowhere";
    CHECK(outrider_open(&options, &none) != OUTRIDER_OK && none == NULL);
    outrider_generation_options generation;
    outrider_generation_options_init(&generation, sizeof generation);
    generation.temperature = -1;
    outrider_request* request = NULL;
    CHECK(outrider_generate(engine, OUTRIDER_PROMPT_USER, "a", 1, &generation, NULL, NULL, &request) ==
          OUTRIDER_BAD_REQUEST);
    CHECK(request == NULL && strstr(outrider_last_error(), "temperature") != NULL);
    CHECK(outrider_submit(engine, OUTRIDER_PROMPT_CHAT, "{", 1, NULL, NULL, NULL, &request) == OUTRIDER_BAD_REQUEST);
    CHECK(outrider_submit(NULL, OUTRIDER_PROMPT_TEXT, "a", 1, NULL, NULL, NULL, &request) == OUTRIDER_BAD_REQUEST);
    outrider_request_free(NULL);
    outrider_close(NULL);
    outrider_cancel(NULL);
}

/* A caller that is older (a shorter structure) and one that is newer (a longer one). */
static void ages(outrider_engine* engine) {
    struct {
        outrider_generation_options known;
        int64_t future;
    } newer;
    memset(&newer, 0, sizeof newer);
    outrider_generation_options_init(&newer.known, sizeof newer);
    CHECK(newer.known.size == sizeof newer);
    newer.known.max_tokens = 3;
    outrider_request* request = NULL;
    CHECK(outrider_generate(engine, OUTRIDER_PROMPT_TEXT, "a", 1, &newer.known, NULL, NULL, &request) == OUTRIDER_OK);
    outrider_request_free(request);
    newer.future = 1;
    CHECK(outrider_submit(engine, OUTRIDER_PROMPT_TEXT, "a", 1, &newer.known, NULL, NULL, &request) ==
          OUTRIDER_NOT_SUPPORTED);
    struct {
        size_t size;
        int64_t max_tokens;
    } older = {sizeof older, 2};
    CHECK(outrider_generate(engine, OUTRIDER_PROMPT_TEXT, "a", 1, (const outrider_generation_options*)(void*)&older, NULL,
                            NULL, &request) == OUTRIDER_OK);
    const outrider_result result = result_of(request);
    CHECK(result.token_count == 2 || (result.token_count == 1 && result.finish == OUTRIDER_FINISH_STOP));
    outrider_request_free(request);
}

static outrider_engine* open_keeping(const char* model) {
    outrider_engine_options options;
    outrider_engine_options_init(&options, sizeof options);
    options.model = model, options.drafter = "ngram", options.chat_template = "chatml";
    options.threads = 1, options.kept_bytes = 1 << 24;
    outrider_engine* engine = NULL;
    CHECK(outrider_open(&options, &engine) == OUTRIDER_OK);
    return engine;
}

/* What one engine has read another one need not read. */
static void conversations(const char* model, const char* folder) {
    char file[1024], none[1024];
    CHECK(snprintf(file, sizeof file, "%s/c_api_test.talk", folder) < (int)sizeof file);
    CHECK(snprintf(none, sizeof none, "%s/c_api_test.none", folder) < (int)sizeof none);
    const outrider_prompt user = OUTRIDER_PROMPT_USER;
    outrider_engine *writer = open_keeping(model), *reader = open_keeping(model);
    int64_t saved = 0, loaded = 0;
    CHECK(outrider_save(writer, user, "count", 5, file, &saved) == OUTRIDER_BAD_REQUEST && saved == 0);
    char* expected = text_of(writer, NULL);
    CHECK(outrider_save(writer, user, "count", 5, file, &saved) == OUTRIDER_OK && saved > 5);
    CHECK(outrider_load(reader, none, &loaded) == OUTRIDER_DAMAGED_FILE && loaded == 0);
    CHECK(strstr(outrider_last_error(), "c_api_test.none") != NULL);
    CHECK(outrider_load(reader, file, &loaded) == OUTRIDER_OK && loaded == saved);
    outrider_request* request = NULL;
    CHECK(outrider_generate(reader, user, "count", 5, NULL, NULL, NULL, &request) == OUTRIDER_OK);
    const outrider_result result = result_of(request);
    CHECK(strcmp(result.text, expected) == 0 && result.resumed == saved - 1);
    outrider_request_free(request);
    CHECK(outrider_save(writer, user, "count", 5, file, NULL) == OUTRIDER_OK);
    CHECK(outrider_load(NULL, file, NULL) == OUTRIDER_BAD_REQUEST);
    CHECK(outrider_save(writer, user, "count", 5, NULL, NULL) == OUTRIDER_BAD_REQUEST);
    free(expected);
    outrider_close(writer);
    outrider_close(reader);
    remove(file);
}

/* What docs/c_api.md shows. */
static int answer(const char* model, const char* chat_template) {
    // [page]
    outrider_engine_options options;
    outrider_engine_options_init(&options, sizeof options);
    options.model = model;
    options.chat_template = chat_template; /* NULL: the model's own */
    outrider_engine* engine;
    if (outrider_open(&options, &engine) != OUTRIDER_OK) return puts(outrider_last_error());

    outrider_request* request;
    const char* ask = "Why is the sky blue?";
    if (outrider_generate(engine, OUTRIDER_PROMPT_USER, ask, strlen(ask), NULL, NULL, NULL, &request) == OUTRIDER_OK) {
        outrider_result result = {.size = sizeof result};
        outrider_wait(request, 0, &result);
        puts(result.text);
        outrider_request_free(request);
    }
    outrider_close(engine);
    // [page]
    return 0;
}

int main(int argc, char** argv) {
    CHECK(argc == 3 && outrider_c_version() == OUTRIDER_C_VERSION);
    outrider_engine* engine = open_tiny(argv[1], "ngram");
    outrider_engine* plain = open_tiny(argv[1], "none");
    texts_and_callbacks(engine, plain);
    errors(engine);
    ages(engine);
    conversations(argv[1], argv[2]);
    CHECK(answer(argv[1], "chatml") == 0);
    outrider_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    CHECK(outrider_get_stats(engine, &stats) == OUTRIDER_OK);
    CHECK(stats.submitted == stats.stopped + stats.length + stats.cancelled + stats.failed && stats.tokens > 0);
    outrider_close(plain);
    outrider_close(engine);
    puts("all as expected");
    return 0;
}
