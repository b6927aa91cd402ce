// Logits and greedy texts against transformers in f32 (tests/oracle/make_model_golden.py, make_gemma_golden.py).
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <outrider/target/llama_model.hpp>

#include "golden.hpp"

using namespace outrider;
using namespace outrider::testing;
using Backend = LlamaModel::Backend;

namespace {

struct Tiny {
    const char* model;
    const char* golden;
};

constexpr Tiny kGguf{"tiny-gguf/tiny.gguf", "tiny-gguf/golden.json"}, kHf{"tiny-hf", "tiny-hf/golden.json"};

}  // namespace

TEST_CASE("Small models in f32 have the reference's logits and greedy texts, by both backends") {
    const Tiny tiny = GENERATE(kGguf, kHf);
    const Backend backend = GENERATE(Backend::aten, Backend::kernels);
    CAPTURE(tiny.model);
    const LlamaModel model =
        LlamaModel::load(kGoldenFolder / tiny.model, {.weights = Weights::f32, .backend = backend, .threads = 2});
    CHECK(model.weights() == Weights::f32);
    const auto pass = model.make_pass();
    const nlohmann::json golden = read_json(kGoldenFolder / tiny.golden);
    CHECK(distance(*pass, golden) < 1e-4);
    CHECK(unexplained(departures(*pass, nlohmann::json::array({golden["greedy"]})), 1e-4) == 0);
}

TEST_CASE("Reduced formats stay near the reference") {
    const Tiny tiny = GENERATE(kGguf, kHf);
    const Weights weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8);
    CAPTURE(tiny.model, name_of(weights));
    const LlamaModel model = LlamaModel::load(kGoldenFolder / tiny.model, {.weights = weights, .threads = 1});
    const auto pass = model.make_pass();
    const double far = distance(*pass, read_json(kGoldenFolder / tiny.golden));
    CHECK(far > 1e-5);  // not f32 in disguise
    CHECK(far < (weights == Weights::bf16 ? 0.1 : 0.4));
}

TEST_CASE("ATen in bf16 stays near the reference") {
    const LlamaModel model =
        LlamaModel::load(kGoldenFolder / kHf.model, {.weights = Weights::bf16, .backend = Backend::aten});
    const auto pass = model.make_pass();
    CHECK(distance(*pass, read_json(kGoldenFolder / kHf.golden)) < 0.2);
}

TEST_CASE("SmolLM2 in f32 has the reference's logits on 8 prompts", "[model]") {
    const LlamaModel model = LlamaModel::load(real_model(), {.weights = Weights::f32});
    const auto pass = model.make_pass();
    CHECK(distance(*pass, read_json(kGoldenFolder / "smollm2_logits.json")) <= 2e-3);
}

TEST_CASE("SmolLM2 in f32 writes the reference's 24 greedy texts", "[model]") {
    const LlamaModel model = LlamaModel::load(real_model(), {.weights = Weights::f32});
    const auto pass = model.make_pass();
    CHECK(unexplained(departures(*pass, read_json(kGoldenFolder / "smollm2_greedy.json")["prompts"]), 1e-3) == 0);
}

TEST_CASE("SmolLM2 by ATen has the reference's logits", "[model]") {
    const LlamaModel model = LlamaModel::load(real_model(), {.weights = Weights::f32, .backend = Backend::aten});
    const auto pass = model.make_pass();
    CHECK(distance(*pass, read_json(kGoldenFolder / "smollm2_logits.json"), 2) <= 2e-3);
}

TEST_CASE("Gemma 3 270M in f32 writes the reference's 24 greedy texts, windows crossed", "[model]") {
    const LlamaModel model = LlamaModel::load(gemma_model(), {.weights = Weights::f32, .context = 2048});
    REQUIRE(model.config().window > 0);
    const nlohmann::json prompts = read_json(kGoldenFolder / "gemma3_greedy.json")["prompts"];
    REQUIRE(prompts.size() == 24);
    int beyond = 0;
    for (const nlohmann::json& prompt : prompts) {
        CHECK(prompt["tokens"].size() == 32);
        const auto ids = prompt["ids"].get<std::vector<TokenId>>();
        CHECK(model.raw(prompt["text"].get<std::string>()).tokens == ids);
        beyond += static_cast<std::int64_t>(ids.size()) > model.config().window;
    }
    CHECK(beyond == 8);
    const auto pass = model.make_pass();
    CHECK(unexplained(departures(*pass, prompts), 1e-3) == 0);
}

TEST_CASE("Gemma 3 270M by ATen writes two of the reference's greedy texts", "[model]") {
    const LlamaModel model = LlamaModel::load(
        gemma_model(), {.weights = Weights::f32, .backend = LlamaModel::Backend::aten, .context = 2048});
    const nlohmann::json all = read_json(kGoldenFolder / "gemma3_greedy.json")["prompts"];
    nlohmann::json some = nlohmann::json::array();
    for (const std::size_t i : {7u, 18u}) some.push_back(all[i]);  // the second lies beyond the windows
    const auto pass = model.make_pass();
    CHECK(unexplained(departures(*pass, some), 1e-3) == 0);
}
