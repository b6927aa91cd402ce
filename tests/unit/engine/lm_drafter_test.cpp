// A checkpoint as drafter, through its name and with the model's own cache.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <outrider/accept/match.hpp>
#include <outrider/core/error.hpp>
#include <outrider/decode/speculative_decoder.hpp>
#include <outrider/draft/none.hpp>
#include <outrider/engine.hpp>
#include <outrider/target/llama_verifier.hpp>

using namespace outrider;

namespace {

const std::string kTiny = OUTRIDER_SOURCE_DIR "/tests/golden/model/tiny-gguf/tiny.gguf";

}  // namespace

TEST_CASE("a target drafts for itself and is right every time, greedy, in chains and trees") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    SpeculativeDecoder plain{NoDraft{}, LlamaVerifier{model}, Match{}};
    const Prompt prompt{{5, 9, 31, 7}};
    const GenerationOptions forty{.max_tokens = 40, .stop_at_end = false};
    const auto expected = plain.generate(prompt, forty).tokens;
    for (const LmTree tree : {LmTree::chain, LmTree::best_first}) {
        const LmDraftOptions lm{.tree = tree, .max_depth = 4};
        auto drafter = make_drafter("lm:" + kTiny, model.head(), {.lm = lm, .lm_model = {.threads = 1}});
        CHECK(drafter->kind() == "lm");
        SpeculativeDecoder decoder{std::move(drafter), LlamaVerifier{model}, Match{}, {.nodes = 4}};
        const GenerationResult result = decoder.generate(prompt, forty);
        CHECK(result.tokens == expected);
        if (tree == LmTree::chain) CHECK(result.stats.rounds == 8);  // kept rows are the bits of fresh ones
    }
}

TEST_CASE("sampled texts do not change with a checkpoint that drafts beside n-grams") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    SpeculativeDecoder plain{NoDraft{}, LlamaVerifier{model}, Match{}};
    const GenerationOptions options{.max_tokens = 40, .temperature = 0.8, .seed = 3, .stop_at_end = false};
    const std::vector<TokenId> expected = plain.generate({{5, 9, 31, 7}}, options).tokens;
    for (const std::int64_t nodes : {std::int64_t{4}, kAutoNodes}) {
        SpeculativeDecoder drafted{make_drafter("lm:" + kTiny + "+ngram", model.head(), {.lm_model = {.threads = 1}}),
                                   LlamaVerifier{model},
                                   Match{},
                                   {.nodes = nodes}};
        const GenerationResult result = drafted.generate({{5, 9, 31, 7}}, options);
        CHECK(result.tokens == expected);
        if (nodes != kAutoNodes) CHECK(result.stats.drafted > 0);  // auto lets a drafter as dear as its target rest
    }
}

TEST_CASE("a checkpoint with another tokenizer is refused") {
    const LlamaModel model = LlamaModel::load(kTiny, {.threads = 1});
    TargetHead other = model.head();
    CHECK(other.tokenizer == LlamaModel::load(kTiny, {.threads = 1}).head().tokenizer);
    other.tokenizer += "0";
    CHECK_THROWS_WITH(make_drafter("lm:" + kTiny, other), Catch::Matchers::ContainsSubstring("another tokenizer"));
    CHECK_THROWS_AS(make_drafter("lm:nowhere.gguf", model.head()), Error);
}
