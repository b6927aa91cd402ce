// Allocations that fail, each in its turn, on the decoding thread behind the C interface: every wait returns.
#include <catch2/catch_all.hpp>

#include <cstdint>
#include <string>

#include "outrider_c.h"
#include "short_memory.hpp"

using outrider::test::allocations_left;

namespace {

const std::string kTiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";

struct Arm {
    std::int64_t at = 0;
    bool armed = false;
};

/// Called on the decoding thread: from here on its allocation number `at` fails.
int arm(void* user, const char*, size_t) {
    auto& self = *static_cast<Arm*>(user);
    if (!self.armed) allocations_left = self.at;
    self.armed = true;
    return 0;
}

/// Called on the decoding thread, by the request after: whether the allocation was reached.
int disarm(void* user, const char*, size_t) {
    *static_cast<bool*>(user) = allocations_left < 0;
    allocations_left = -1;
    return 0;
}

outrider_status ask(outrider_engine* engine, std::int64_t tokens, outrider_text_callback callback, void* user) {
    outrider_generation_options options;
    outrider_generation_options_init(&options, sizeof options);
    options.max_tokens = tokens;
    outrider_request* request = nullptr;
    outrider_status status =
        outrider_submit(engine, OUTRIDER_PROMPT_TEXT, "one two", 7, &options, callback, user, &request);
    REQUIRE(status == OUTRIDER_OK);
    outrider_result result{};
    result.size = sizeof result;
    status = outrider_wait(request, 60'000, &result);
    REQUIRE(status != OUTRIDER_PENDING);
    if (status != OUTRIDER_OK) CHECK(status == OUTRIDER_OUT_OF_MEMORY);
    outrider_request_free(request);
    return status;
}

}  // namespace

TEST_CASE("memory that is short behind the C interface lets no wait hang", "[c_api][faults]") {
    outrider_engine_options options;
    outrider_engine_options_init(&options, sizeof options);
    options.model = kTiny.c_str(), options.drafter = "ngram", options.threads = 1;
    options.chat_template = "chatml";
    outrider_engine* engine = nullptr;
    REQUIRE(outrider_open(&options, &engine) == OUTRIDER_OK);
    int failed = 0;
    std::int64_t at = 0;
    for (bool reached = true; reached && at < 3000; at += at < 60 ? 1 : 7) {
        CAPTURE(at);
        Arm armed{at};
        failed += ask(engine, 8, arm, &armed) != OUTRIDER_OK;
        REQUIRE(armed.armed);
        (void)ask(engine, 8, disarm, &reached);
    }
    CHECK(failed > 0);
    outrider_close(engine);
}
