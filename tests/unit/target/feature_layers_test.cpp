// Features of inner layers: who asks, which columns, and what stands in them.
#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <outrider/core/error.hpp>
#include <outrider/target/detail/features.hpp>
#include <outrider/target/llama_model.hpp>

#include "deep_folder.hpp"
#include "restatement.hpp"

using namespace outrider;
using namespace outrider::testing;
using Backend = LlamaModel::Backend;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Layers = std::vector<std::int64_t>;

namespace {

std::vector<TokenId> some_ids(std::int64_t count = 21) {
    std::vector<TokenId> ids;
    for (std::int64_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>((5 + 41 * i + i * i) % 280));
    return ids;
}

double worst(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

PassOutput run(TargetPass& pass, KvCache& cache, std::span<const TokenId> tokens,
               std::span<const NodeIndex> parents = {}, bool with_logits = true, const Layers& layers = {}) {
    const RowSegment segment{.cache = &cache, .tokens = tokens, .parents = parents};
    PassOutput output = pass.forward(std::span(&segment, 1), with_logits ? PassFor::logits : PassFor::features, layers);
    if (with_logits) output.logits = output.logits.clone();  // lent out
    return output;
}

}  // namespace

TEST_CASE("Requests join, and each is taken out of the features of all", "[features]") {
    const FeatureRequest final{}, some{.layers = {1, 3}}, others{.layers = {2, 3}}, none = FeatureRequest::none();
    CHECK((both(some, others) == FeatureRequest{.layers = {1, 2, 3}}));
    CHECK((both(none, none) == none));
    CHECK((both(none, final) == final));
    constexpr std::int64_t H = 5;
    CHECK(final.width(H) == H);
    CHECK(some.width(H) == 3 * H);
    CHECK(none.width(H) == 0);
    const at::Tensor wide = at::arange(2 * 4 * H).view({2, 4 * H}).to(at::kFloat);
    const FeatureRequest all{.layers = {1, 2, 3}};
    CHECK(at::equal(take_features(wide, all, all), wide));
    CHECK(at::equal(take_features(wide, all, final), wide.slice(1, 0, H)));
    CHECK(at::equal(take_features(wide, all, {.layers = {1}}), wide.slice(1, 0, 2 * H)));
    CHECK(at::equal(take_features(wide, all, others), at::cat({wide.slice(1, 0, H), wide.slice(1, 2 * H)}, 1)));
    CHECK_FALSE(take_features(wide, all, none).defined());
}

TEST_CASE("A drafter that is made on a model leaves its forwards as they were", "[features]") {
    const Backend backend = GENERATE(Backend::aten, Backend::kernels);
    const DeepFolder folder;
    const LlamaModel model = LlamaModel::load(folder.path(), {.backend = backend, .threads = 1});
    CHECK(model.head().feature_layers == model.config().layers - 1);
    const std::vector<TokenId> ids = some_ids();
    const auto pass = model.make_pass();
    KvCache cache = pass->make_cache();
    const RowSegment segment{.cache = &cache, .tokens = ids};
    CHECK(pass->forward(std::span(&segment, 1), PassFor::logits).features.size(1) == model.config().hidden);
    const std::vector<std::int64_t> layers{1, 3};
    CHECK(pass->forward(std::span(&segment, 1), PassFor::logits, layers).features.size(1) == 3 * model.config().hidden);
    CHECK(pass->forward(std::span(&segment, 1), PassFor::logits).features.size(1) == model.config().hidden);
}

TEST_CASE("Features of layers are residual streams of unit size, by both backends", "[features]") {
    const Backend backend = GENERATE(Backend::aten, Backend::kernels);
    const DeepFolder folder;
    const LlamaModel model =
        LlamaModel::load(folder.path(), {.weights = Weights::f32, .backend = backend, .threads = 2});
    const Restatement plain(model, folder.path());
    const std::vector<TokenId> ids = some_ids();
    const auto all = static_cast<std::int64_t>(ids.size()), H = model.config().hidden;
    const auto pass = model.make_pass();
    KvCache before = pass->make_cache();
    const PassOutput without = run(*pass, before, ids);
    CHECK(without.features.size(1) == H);

    const Layers layers{1, 2, 3};
    KvCache cache = pass->make_cache();
    const PassOutput with = run(*pass, cache, ids, {}, true, layers);
    REQUIRE(with.features.sizes() == at::IntArrayRef({all, 4 * H}));
    CHECK(at::equal(with.features.slice(1, 0, H), without.features));  // nothing else has changed
    CHECK(at::equal(with.logits, without.logits));
    CHECK(worst(with.features.slice(1, 0, H), plain.final_features(ids, all)) < 1e-3);
    std::int64_t column = H;
    for (const std::int64_t layer : layers) {
        CAPTURE(layer);
        const at::Tensor x = plain.stream(ids, all, layer);
        const at::Tensor expected = x * at::rsqrt(x.square().mean(-1, true) + model.config().norm_eps);
        const at::Tensor got = with.features.slice(1, column, column + H);
        CHECK(worst(got, expected) < 1e-4);
        CHECK(worst(got.square().mean(-1), at::ones({all})) < 1e-3);
        for (const std::int64_t other : layers)
            if (other != layer) CHECK(worst(plain.stream(ids, all, other), x) > 0.01);  // the layers differ
        column += H;
    }
    KvCache quiet = pass->make_cache();
    CHECK(at::equal(run(*pass, quiet, ids, {}, false, layers).features, with.features));
}

TEST_CASE("A row's features of layers have the same bits alone, in a prompt and in a tree", "[features]") {
    const int threads = GENERATE(1, 2, 3);
    const Weights weights = GENERATE(Weights::f32, Weights::bf16, Weights::int8);
    const DeepFolder folder;
    const LlamaModel model =
        LlamaModel::load(folder.path(), {.weights = weights, .backend = Backend::kernels, .threads = threads});
    const Layers layers{1, 3};
    const std::vector<TokenId> ids = some_ids(37);
    const auto pass = model.make_pass();
    KvCache whole = pass->make_cache(), stepped = pass->make_cache();
    const at::Tensor together = run(*pass, whole, ids, {}, true, layers).features;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        CAPTURE(i);
        const at::Tensor alone = run(*pass, stepped, std::span(ids).subspan(i, 1), {}, true, layers).features;
        stepped.append(1);
        REQUIRE(at::equal(alone[0], together[static_cast<std::int64_t>(i)]));
    }
    // A tree behind the text: its first path is tokens 3, 4, 5, a branch of others leaves at the root.
    const std::vector<TokenId> tree{3, 4, 9, 5, 10};
    const std::vector<NodeIndex> parents{kNoNode, 0, 0, 1, 2};
    const at::Tensor drafted = run(*pass, stepped, tree, parents, true, layers).features;
    std::int64_t node = 0;
    for (const std::int64_t row : {0, 1, 3}) {
        const TokenId token = tree[static_cast<std::size_t>(row)];
        CAPTURE(node++);
        CHECK(at::equal(run(*pass, stepped, std::span(&token, 1), {}, true, layers).features[0], drafted[row]));
        stepped.append(1);
    }
}
