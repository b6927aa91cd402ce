/* Outrider's C interface: texts by a model with drafts, from any language that can call C. See docs/c_api.md.
 *
 *     outrider_engine_options options;
 *     outrider_engine_options_init(&options, sizeof options);
 *     options.model = "SmolLM2-135M-Instruct.Q4_1.gguf";
 *     outrider_engine* engine;
 *     if (outrider_open(&options, &engine) != OUTRIDER_OK) puts(outrider_last_error());
 *
 * Functions may be called from any thread. None throws, prints or ends the program. Texts are UTF-8. Structures begin
 * with their size, so that a program and a library of different age understand each other: fields are only ever added at
 * the end, and a field that is not there holds its default. */
#ifndef OUTRIDER_C_H
#define OUTRIDER_C_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define OUTRIDER_C_API __attribute__((visibility("default")))
#else
#define OUTRIDER_C_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every change of this header; outrider_c_version() tells that of the library. */
#define OUTRIDER_C_VERSION 3

typedef enum outrider_status {
    OUTRIDER_OK = 0,
    OUTRIDER_BAD_REQUEST = 1,        /* arguments or options that cannot be served: change them */
    OUTRIDER_DAMAGED_FILE = 2,       /* a file that is missing, cut short or no such format */
    OUTRIDER_NOT_SUPPORTED = 3,      /* sound, but beyond this version */
    OUTRIDER_MISMATCHED_DRAFTER = 4, /* a drafter of another model */
    OUTRIDER_OUT_OF_MEMORY = 5,      /* fewer or shorter requests, a smaller model, more memory */
    OUTRIDER_INTERNAL = 6,           /* report it */
    OUTRIDER_BUSY = 7,               /* the queue is full: try again later */
    OUTRIDER_PENDING = 8             /* the request has not ended */
} outrider_status;

typedef enum outrider_finish {
    OUTRIDER_FINISH_STOP = 0,   /* an end token or a stop string */
    OUTRIDER_FINISH_LENGTH = 1, /* max_tokens, or the model's context is full */
    OUTRIDER_FINISH_CANCELLED = 2,
    OUTRIDER_FINISH_DEADLINE = 3,
    OUTRIDER_FINISH_FAILED = 4
} outrider_finish;

/* How the text of a request is meant. */
typedef enum outrider_prompt {
    OUTRIDER_PROMPT_USER = 0, /* one message of a user, by the model's chat template */
    OUTRIDER_PROMPT_CHAT = 1, /* JSON: {"messages": [{"role", "content"}, ...], ...}; other keys go to the template */
    OUTRIDER_PROMPT_TEXT = 2  /* a text to continue; special tokens in it are read as such */
} outrider_prompt;

typedef struct outrider_engine outrider_engine;
typedef struct outrider_request outrider_request;

/* Strings are read during the call. */
typedef struct outrider_engine_options {
    size_t size;
    const char* model;           /* a GGUF file or a Hugging Face folder */
    const char* drafter;         /* a name as the program takes it; NULL: the best one in `drafters`, else n-grams */
    const char* drafters;        /* a folder of drafters; NULL: those that are shipped */
    const char* chat_template;   /* name of a built-in one; NULL: the model's own */
    const char* pass_times_file; /* where costs of passes are remembered; NULL: nowhere */
    uint64_t memory;             /* bytes for KV caches; 0: no bound */
    int64_t nodes;               /* of a draft tree; -1: as many as pay */
    int32_t threads;             /* 0: one per physical core */
    uint32_t max_batch;          /* requests decoded together; default 8 */
    uint32_t queue;              /* requests that may wait; default 256 */
    uint64_t kept_bytes;         /* of texts that ended: the next turn of a chat reads what is new in it; 0: none kept */
} outrider_engine_options;

typedef struct outrider_generation_options {
    size_t size;
    int64_t max_tokens;        /* default 128 */
    double temperature;        /* 0, the default: greedy */
    double top_p;              /* default 1: all */
    double min_p;              /* default 0: none */
    double repetition_penalty; /* default 1 */
    int64_t top_k;             /* default 0: all */
    uint64_t seed;             /* counts where has_seed is not 0; else every request gets its own */
    uint64_t choice;           /* tells draws of one prompt and one seed apart */
    const char* const* stop;   /* strings that end the text */
    size_t stops;
    int64_t deadline_ms; /* from the call on; 0: none */
    int32_t priority;    /* greater ones enter first */
    int32_t has_seed;
    const char* json_schema; /* the text is JSON that this schema allows; NULL: any text */
} outrider_generation_options;

/* What its pointers show lives as long as the request. */
typedef struct outrider_result {
    size_t size;
    const char* text; /* ends with a 0 byte that text_bytes does not count */
    size_t text_bytes;
    const int32_t* tokens;
    size_t token_count;
    const char* error; /* with OUTRIDER_FINISH_FAILED, what happened; else empty */
    outrider_finish finish;
    uint64_t seed; /* asked for again, it says the same */
    int64_t prompt_tokens, drafted, accepted, rounds;
    double prefill_seconds, decoding_seconds;
    int64_t resumed; /* of the prompt's tokens, those that were kept and not read again */
} outrider_result;

/* Sums since the engine was opened, and what is there now. */
typedef struct outrider_stats {
    size_t size;
    int64_t submitted, refused, stopped, length, cancelled, deadline, failed;
    int64_t queued, active;
    int64_t prompt_tokens, tokens, rounds, drafted, accepted; /* of requests that have ended */
} outrider_stats;

/* New text of a request, whole UTF-8 characters, on the decoding thread: be quick. Not 0: end the text. It may submit and
 * cancel; it must not wait, save, load, free or close. */
typedef int (*outrider_text_callback)(void* user, const char* text, size_t bytes);

OUTRIDER_C_API uint32_t outrider_c_version(void);

/* Of the last call of this thread that did not return OUTRIDER_OK or OUTRIDER_PENDING; until the next such call. */
OUTRIDER_C_API const char* outrider_last_error(void);

/* Fill with defaults, as far as `size` bytes go. */
OUTRIDER_C_API void outrider_engine_options_init(outrider_engine_options* options, size_t size);
OUTRIDER_C_API void outrider_generation_options_init(outrider_generation_options* options, size_t size);

/* Loads model and drafter, and starts a thread that decodes. */
OUTRIDER_C_API outrider_status outrider_open(const outrider_engine_options* options, outrider_engine** engine);

/* Ends what is left as cancelled, and frees the engine. Requests stay readable until each is freed. NULL: nothing. */
OUTRIDER_C_API void outrider_close(outrider_engine* engine);

/* Queues a request and returns at once. `options` and `callback` may be NULL. */
OUTRIDER_C_API outrider_status outrider_submit(outrider_engine* engine, outrider_prompt kind, const char* text,
                                               size_t bytes, const outrider_generation_options* options,
                                               outrider_text_callback callback, void* user, outrider_request** request);

/* The same, and waits for its end. OUTRIDER_OK also for a text that was cancelled; what failed has its status here. With
 * any other status there is no request to free. */
OUTRIDER_C_API outrider_status outrider_generate(outrider_engine* engine, outrider_prompt kind, const char* text,
                                                 size_t bytes, const outrider_generation_options* options,
                                                 outrider_text_callback callback, void* user,
                                                 outrider_request** request);

/* Waits up to so many milliseconds (0: looks; -1: for ever). OUTRIDER_PENDING: it has not ended. A request that failed
 * gives its status, and its result too. `result` may be NULL. */
OUTRIDER_C_API outrider_status outrider_wait(outrider_request* request, int64_t milliseconds, outrider_result* result);

/* Ends the text between two rounds. */
OUTRIDER_C_API void outrider_cancel(outrider_request* request);

/* Cancels, waits for the end, and frees: afterwards the callback is not called. NULL: nothing. */
OUTRIDER_C_API void outrider_request_free(outrider_request* request);

/* Writes what is known of the longest beginning of this prompt, of a text that is kept (kept_bytes) or decoded, to a file:
 * a program that is started again need not read it again. The prompt is that of outrider_submit, a conversation so far,
 * say. `tokens`: how many of its tokens the file holds; may be NULL. Waits for the round that runs; the texts wait for it.
 * OUTRIDER_BAD_REQUEST where nothing is known of the prompt. */
OUTRIDER_C_API outrider_status outrider_save(outrider_engine* engine, outrider_prompt kind, const char* text,
                                             size_t bytes, const char* file, int64_t* tokens);

/* Keeps what outrider_save wrote, so that prompts which begin so are not read again. `tokens` as there. OUTRIDER_DAMAGED_FILE
 * for one that is not there or cut short; OUTRIDER_BAD_REQUEST for one of another model, and where kept_bytes is too
 * small. */
OUTRIDER_C_API outrider_status outrider_load(outrider_engine* engine, const char* file, int64_t* tokens);

OUTRIDER_C_API outrider_status outrider_get_stats(outrider_engine* engine, outrider_stats* stats);

#ifdef __cplusplus
}
#endif

#endif
