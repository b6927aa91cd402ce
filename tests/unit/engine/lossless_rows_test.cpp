// The library's own verifier under the check that it offers to others.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>

#include <string>
#include <vector>

#include <outrider/decode/check_lossless.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

TEST_CASE("rows of the kernels' pass are the same in every tree") {
    const std::string tiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";
    LlamaVerifier verifier{LlamaModel::load(tiny, {.threads = 2})};
    const std::vector<std::vector<TokenId>> prompts{{5, 9, 31, 7}, {1}};
    // [check]
    const LosslessReport report = check_lossless(verifier, prompts, {.tokens = 40});
    // [check]
    CHECK(report.rows == 80);
    CHECK(report.exact());
    CHECK(report.lossless());
    CHECK(report.largest_difference == 0);
    CHECK(verifier.active() == 0);
}
