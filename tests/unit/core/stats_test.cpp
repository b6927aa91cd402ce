#include <catch2/catch_test_macros.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/result.hpp>

using namespace outrider;

TEST_CASE("stats of several sequences add up field by field, whatever their depths") {
    DecodeStats a{.prompt_tokens = 3,
                  .tokens = 10,
                  .rounds = 4,
                  .drafted = 20,
                  .accepted = 6,
                  .drafted_per_depth = {4, 3},
                  .accepted_per_depth = {4, 2},
                  .seconds = {1, 2, 3, 4, 5, 6}};
    const DecodeStats b{.prompt_tokens = 5,
                        .tokens = 2,
                        .rounds = 2,
                        .drafted = 7,
                        .accepted = 1,
                        .drafted_per_depth = {2, 2, 2},
                        .accepted_per_depth = {1},
                        .seconds = {10, 20, 30, 40, 50, 60}};
    DecodeStats left = a, right = b;
    left += b;
    right += a;
    for (const DecodeStats& sum : {left, right}) {
        CHECK(sum.prompt_tokens == 8);
        CHECK(sum.tokens == 12);
        CHECK(sum.rounds == 6);
        CHECK(sum.drafted == 27);
        CHECK(sum.accepted == 7);
        CHECK(sum.drafted_per_depth == std::vector<std::int64_t>{6, 5, 2});
        CHECK(sum.accepted_per_depth == std::vector<std::int64_t>{5, 2});
        CHECK(sum.beta() == 2.0);
        CHECK(sum.seconds.prefill == 11);
        CHECK(sum.seconds.draft == 22);
        CHECK(sum.seconds.verify == 33);
        CHECK(sum.seconds.accept == 44);
        CHECK(sum.seconds.commit == 55);
        CHECK(sum.seconds.other == 66);
        CHECK(sum.seconds.decoding() == 220);
    }
    CHECK(DecodeStats{}.beta() == 0.0);
}

TEST_CASE("a request's options reach the sampler unchanged") {
    GenerationOptions options{.max_tokens = 9,
                              .temperature = 0.7,
                              .top_p = 0.8,
                              .top_k = 11,
                              .min_p = 0.05,
                              .repetition_penalty = 1.2,
                              .seed = 5,
                              .stream = 6};
    int calls = 0;
    options.logit_hook = [&](std::span<const TokenId>, std::span<float>) { ++calls; };
    const SamplingOptions sampling = options.sampling();
    CHECK(sampling.temperature == 0.7);
    CHECK(sampling.top_p == 0.8);
    CHECK(sampling.top_k == 11);
    CHECK(sampling.min_p == 0.05);
    CHECK(sampling.repetition_penalty == 1.2);
    CHECK(sampling.seed == 5);
    CHECK(sampling.stream == 6);
    sampling.logit_hook({}, {});
    CHECK(calls == 1);
}
