// Every family, in both formats and by both passes, against transformers in f32 (tests/oracle/make_family_golden.py).
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <outrider/core/error.hpp>
#include <outrider/target/llama_model.hpp>

#include "golden.hpp"

using namespace outrider;
using namespace outrider::testing;
using Backend = LlamaModel::Backend;

namespace {

const std::filesystem::path kFamilies = OUTRIDER_SOURCE_DIR "/tests/golden/families";

const std::vector<std::string> kNames = {"llama",    "qwen2", "qwen3", "gemma3",  "gemma2", "smollm3", "mistral",
                                         "mistral3", "phi3",  "glm4",  "granite", "olmo2",  "olmo3"};

/// Largest logit of the record, the scale of what may differ.
double scale_of(const nlohmann::json& golden) {
    double most = 0;
    for (const auto& prompt : golden["prompts"])
        for (const auto& row : prompt["rows"])
            for (const auto& value : row["top_values"]) most = std::max(most, std::abs(value.get<double>()));
    return most;
}

at::Tensor run(TargetPass& pass, KvCache& cache, std::span<const TokenId> tokens,
               std::span<const NodeIndex> parents = {}) {
    const RowSegment segment{.cache = &cache, .tokens = tokens, .parents = parents};
    return pass.forward(std::span(&segment, 1), PassFor::logits).logits.clone();
}

}  // namespace

TEST_CASE("Every family has the reference's logits and greedy texts, from both formats, by every backend") {
    const std::string name = GENERATE(from_range(kNames));
    const std::string file = GENERATE("hf", "twin.gguf");
    const Backend backend = GENERATE(Backend::aten, Backend::kernels, Backend::device);
    CAPTURE(name, file, static_cast<int>(backend));
    const LlamaModel model = LlamaModel::load(
        kFamilies / name / file, {.weights = Weights::f32, .backend = backend, .threads = 1, .cache_tokens = 2000});
    const auto pass = model.make_pass();
    const nlohmann::json golden = read_json(kFamilies / name / "golden.json");
    CHECK(distance(*pass, golden) <= 1e-4 * scale_of(golden));
    CHECK(unexplained(departures(*pass, nlohmann::json::array({golden["greedy"]})), 1e-3) == 0);
}

TEST_CASE("Every family stays near the reference in reduced formats") {
    const std::string name = GENERATE(from_range(kNames));
    const Weights weights = GENERATE(Weights::stored, Weights::bf16, Weights::int8);
    CAPTURE(name, name_of(weights));
    const nlohmann::json golden = read_json(kFamilies / name / "golden.json");
    const LlamaModel model = LlamaModel::load(kFamilies / name / "twin.gguf", {.weights = weights, .threads = 1});
    const auto pass = model.make_pass();
    CHECK(distance(*pass, golden) < (weights == Weights::int8 ? 0.25 : 0.1) * scale_of(golden));
}

TEST_CASE("In every family a tree's rows have the bits of plain decoding, alone and beside other texts") {
    static const std::vector<NodeIndex> kParents{kNoNode, 0, 1, 2, 3, 4, 5, 6, 7, 1, 9, 0, 5};
    const std::string name = GENERATE(from_range(kNames));
    CAPTURE(name);
    const LlamaModel model = LlamaModel::load(kFamilies / name / "hf", {.backend = Backend::kernels, .threads = 2});
    const auto pass = model.make_pass();
    std::vector<TokenId> ids, tokens, other;
    for (TokenId i = 0; i < 30; ++i) ids.push_back((7 + 37 * i + i * i) % 67), other.push_back((11 + 5 * i) % 67);
    for (std::size_t i = 0; i < kParents.size(); ++i) tokens.push_back(static_cast<TokenId>((5 + 13 * i) % 67));
    KvCache cache = pass->make_cache(), beside = pass->make_cache();
    (void)run(*pass, cache, ids);
    cache.append(30);
    const std::vector<RowSegment> segments{{.cache = &beside, .tokens = other},
                                           {.cache = &cache, .tokens = tokens, .parents = kParents}};
    const at::Tensor logits = pass->forward(segments, PassFor::logits).logits.slice(0, 30).clone();
    KvCache alone = pass->make_cache();
    const auto feed = [&](TokenId token) {
        const at::Tensor row = run(*pass, alone, std::span(&token, 1))[0];
        alone.append(1);
        return row;
    };
    for (const TokenId token : ids) (void)feed(token);
    for (std::size_t node = 0; node < kParents.size(); ++node) {
        CAPTURE(node);
        std::vector<TokenId> path;
        for (auto at = static_cast<NodeIndex>(node); at >= 0; at = kParents[static_cast<std::size_t>(at)])
            path.insert(path.begin(), tokens[static_cast<std::size_t>(at)]);
        at::Tensor last;
        for (const TokenId token : path) last = feed(token);
        CHECK(at::equal(logits[static_cast<std::int64_t>(node)], last));
        alone.truncate(30);
    }
}

TEST_CASE("In every family all numbers of threads give the same bits, and name the largest logit") {
    const std::string name = GENERATE(from_range(kNames));
    const Weights weights = GENERATE(Weights::f32, Weights::int8);
    CAPTURE(name, name_of(weights));
    std::vector<at::Tensor> expected;
    for (const int threads : {1, 2, 3, 5, 7}) {
        CAPTURE(threads);
        const LlamaModel model = LlamaModel::load(
            kFamilies / name / "hf", {.weights = weights, .backend = Backend::kernels, .threads = threads});
        const auto pass = model.make_pass();
        std::vector<at::Tensor> told;
        for (const std::size_t rows : {1, 3, 6, 30}) {
            std::vector<TokenId> ids;
            for (std::size_t i = 0; i < rows; ++i) ids.push_back(static_cast<TokenId>((7 + 37 * i + i * i) % 67));
            KvCache cache = pass->make_cache();
            const RowSegment segment{.cache = &cache, .tokens = ids};
            const PassOutput output = pass->forward(std::span(&segment, 1), PassFor::logits);
            CHECK(at::equal(output.argmax, output.logits.argmax(1)));
            told.push_back(output.logits.clone()), told.push_back(output.features.clone());
        }
        if (threads == 1) expected = told;
        for (std::size_t i = 0; i < told.size(); ++i) CHECK(at::equal(told[i], expected[i]));
    }
}

TEST_CASE("Both formats of a family are one description") {
    const std::string name = GENERATE(from_range(kNames));
    CAPTURE(name);
    const ModelConfig hf = LlamaModel::load(kFamilies / name / "hf").config();
    const ModelConfig gguf = LlamaModel::load(kFamilies / name / "twin.gguf").config();
    const auto sizes = [](const ModelConfig& c) {
        return std::vector<std::int64_t>{c.layers,  c.hidden,     c.heads,   c.kv_heads, c.head_dim,   c.feed_forward,
                                         c.context, c.vocabulary, c.rotated, c.window,   c.tied_output};
    };
    CHECK(sizes(hf) == sizes(gguf));
    for (std::int64_t layer = 0; layer < hf.layers; ++layer) {
        CAPTURE(layer);
        CHECK(hf.window_of(layer) == gguf.window_of(layer));
        REQUIRE((hf.rope_of(layer) == nullptr) == (gguf.rope_of(layer) == nullptr));
        if (hf.rope_of(layer) == nullptr) continue;
        CHECK(hf.rope_of(layer)->frequencies(hf.rotated) == gguf.rope_of(layer)->frequencies(gguf.rotated));
        CHECK(std::abs(hf.rope_of(layer)->magnitude - gguf.rope_of(layer)->magnitude) < 1e-6);
    }
}

TEST_CASE("longrope: the context that will be used chooses the factors, once") {
    const std::filesystem::path path = kFamilies / "phi3" / "hf";
    const LlamaModel wide = LlamaModel::load(path), narrow = LlamaModel::load(path, {.context = 24});
    CHECK(wide.config().rope.divisors == std::vector<float>{1.0F, 1.3F, 1.9F, 2.4F});
    CHECK(narrow.config().rope.divisors == std::vector<float>{1.0F, 1.1F, 1.2F, 1.4F});
    CHECK(narrow.config().context == 24);
    CHECK(narrow.config().rope.magnitude == wide.config().rope.magnitude);
    CHECK(LlamaModel::load(kFamilies / "phi3" / "twin.gguf", {.context = 24}).config().rope.divisors ==
          narrow.config().rope.divisors);
    CHECK_THROWS_AS(LlamaModel::load(path, {.context = -1}), Error);
}
