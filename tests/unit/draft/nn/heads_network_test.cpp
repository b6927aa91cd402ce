// Medusa's and Hydra's networks against the same mathematics as plain loops, gradients against differences.
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <outrider/core/error.hpp>

#include "heads_fixture.hpp"

using namespace outrider;
using namespace outrider::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

template <typename Weights>
Weights in_double(Weights weights) {
    for (auto& [name, weight] : weights.named()) *weight = weight->to(at::kDouble);
    return weights;
}

void check_close(const at::Tensor& got, const Numbers& expected) {
    const Numbers values = numbers(got);
    REQUIRE(values.size() == expected.size());
    for (std::size_t i = 0; i < values.size(); ++i) REQUIRE(values[i] == Catch::Approx(expected[i]).margin(1e-9));
}

/// d/dt f(w + t d) at 0 against the gradient that autograd gives, over all weights at once.
template <typename Weights, typename F>
void check_gradient(Weights weights, F&& f) {
    Weights moved = weights;
    const double step = 1e-5;
    const auto shifted = [&](double t) {
        std::uint64_t seed = 500;
        auto to = moved.named();
        const auto from = weights.named();
        for (std::size_t i = 0; i < to.size(); ++i)
            *to[i].second = from[i].second->detach() + t * noise(from[i].second->sizes().vec(), seed++, 1.0);
        return f(moved).template item<double>();
    };
    const double expected = (shifted(step) - shifted(-step)) / (2 * step);
    for (auto& [name, weight] : weights.named()) *weight = weight->detach().clone().set_requires_grad(true);
    f(weights).backward();
    double got = 0;
    std::uint64_t seed = 500;
    for (auto& [name, weight] : weights.named()) {
        INFO(name);
        REQUIRE(weight->grad().defined());
        CHECK(weight->grad().abs().max().template item<double>() > 0);
        got += (weight->grad() * noise(weight->sizes().vec(), seed++, 1.0)).sum().template item<double>();
    }
    CHECK(got == Catch::Approx(expected).epsilon(1e-5));
}

}  // namespace

TEST_CASE("Medusa network: plain loops, all ways to an output matrix") {
    const TargetHead head = toy_head();
    const at::Tensor features = noise({4, kToyHidden}, 1, 2);
    for (const HeadOutput output : {HeadOutput::own, HeadOutput::shared, HeadOutput::target})
        for (const std::int64_t blocks : {1, 2}) {
            const MedusaConfig config = toy_medusa(output, blocks);
            const MedusaWeights weights = in_double(toy_weights(config, head));
            const TargetTables tables = make_target_tables(head, config.vocabulary, 1.0, at::kDouble, at::kCPU);
            const at::Tensor logits = medusa_logits(config, weights, tables, features, at::kDouble);
            REQUIRE(logits.sizes() == at::IntArrayRef({3, 4, 20}));
            for (std::int64_t k = 0; k < 3; ++k)
                for (std::int64_t a = 0; a < 4; ++a)
                    check_close(logits[k][a], plain_medusa(weights, medusa_output(config, weights, tables, k),
                                                           static_cast<std::size_t>(k), numbers(features[a])));
            check_gradient(weights, [&](const MedusaWeights& w) {
                return (medusa_logits(config, w, tables, features, at::kDouble) * noise({3, 4, 20}, 44, 1)).sum();
            });
        }
}

TEST_CASE("Hydra network: plain loops, with and without the prefix layer") {
    const TargetHead head = toy_head();
    const std::int64_t n = 7;
    const at::Tensor features = noise({n, kToyHidden}, 1, 2);
    std::vector<Numbers> rows;
    for (std::int64_t j = 0; j < n; ++j) rows.push_back(numbers(features[j]));
    const auto ids = at::tensor(std::vector<std::int64_t>{3, 8, 21, 5, 17, 30}, at::kLong).view({2, 3});
    const at::Tensor committed = at::tensor(std::vector<std::int64_t>{n, 4}, at::kLong);
    for (const bool prefix : {false, true})
        for (const HydraResidual residual : {HydraResidual::feature, HydraResidual::matrix})
            for (const HeadOutput output : {HeadOutput::own, HeadOutput::shared, HeadOutput::target}) {
                const HydraConfig config = toy_hydra(prefix, residual, output, output == HeadOutput::own ? 2 : 1);
                const HydraWeights weights = in_double(toy_weights(config, head));
                const TargetTables tables =
                    make_target_tables(head, config.vocabulary, config.embedding_scale, at::kDouble, at::kCPU);
                const auto logits = [&](const HydraWeights& w) {
                    std::vector<ContextGroup> groups;
                    if (prefix) {
                        // Keys of all rows: the second anchor must not see those behind it.
                        const LayerContext context =
                            hydra_context(config, w, features, at::arange(n, at::kLong), at::kDouble);
                        groups.push_back({context.keys, context.values, 2});
                    }
                    const at::Tensor ground = hydra_ground(config, w, features.index_select(0, committed - 1),
                                                           committed, groups, at::kDouble);
                    return hydra_logits(config, w, tables, ground, ids, at::kDouble);
                };
                const at::Tensor got = logits(weights);
                REQUIRE(got.sizes() == at::IntArrayRef({3, 2, 20}));
                for (const std::int64_t a : {0, 1}) {
                    const std::vector<Numbers> seen(rows.begin(), rows.begin() + (a == 0 ? n : 4));
                    const Numbers ground = plain_ground(config, weights, seen);
                    std::vector<TokenId> path;
                    for (std::int64_t k = 0; k < 3; ++k) {
                        path.push_back(static_cast<TokenId>(ids[a][k].item<std::int64_t>()));
                        check_close(got[k][a], plain_hydra(config, weights, tables.output, head, ground, path));
                    }
                }
                check_gradient(weights,
                               [&](const HydraWeights& w) { return (logits(w) * noise({3, 2, 20}, 44, 1)).sum(); });
            }
}

TEST_CASE("heads begin as the target's own output") {
    const TargetHead head = toy_head();
    const MedusaConfig medusa = toy_medusa(HeadOutput::shared);
    MedusaWeights m = init_medusa_weights(medusa, head, 1);
    for (auto& blocks : m.heads) blocks[0].bias = at::zeros({kToyHidden});  // small, but not zero
    const at::Tensor h = noise({2, kToyHidden}, 1, 2).to(at::kFloat);
    const TargetTables tables = make_target_tables(head, medusa.vocabulary, 0.7, at::kFloat, at::kCPU);
    const at::Tensor expected = at::linear(h, tables.output);
    CHECK(at::allclose(medusa_logits(medusa, m, tables, h, at::kFloat)[1], expected, 1e-5, 1e-5));
    for (const HydraResidual residual : {HydraResidual::feature, HydraResidual::matrix}) {
        const HydraConfig hydra = toy_hydra(false, residual);
        HydraWeights w = init_hydra_weights(hydra, head, 1);
        for (auto& blocks : w.heads) blocks[0].bias = at::zeros({kToyHidden});
        CHECK(at::allclose(hydra_logits(hydra, w, tables, h, at::full({2, 3}, 5, at::kLong), at::kFloat)[2], expected,
                           1e-4, 1e-4));
    }
    // The same seed gives the same start, another one another.
    CHECK(init_hydra_weights(toy_hydra(true), head, 4)
              .prefix.qkv.equal(init_hydra_weights(toy_hydra(true), head, 4).prefix.qkv));
    CHECK(!init_hydra_weights(toy_hydra(true), head, 4)
               .prefix.qkv.equal(init_hydra_weights(toy_hydra(true), head, 5).prefix.qkv));
}

TEST_CASE("heads: weights and configs that do not go together are refused by name") {
    const TargetHead head = toy_head();
    const auto refuses = [](auto&& f, const char* words) {
        CHECK_THROWS_MATCHES(f(), Error, MessageMatches(ContainsSubstring(words)));
    };
    const MedusaConfig medusa = toy_medusa(HeadOutput::own);
    MedusaWeights m = init_medusa_weights(medusa, head, 1);
    m.heads[1][0].bias = at::zeros({kToyHidden + 1});
    refuses([&] { check_medusa_weights(medusa, m); }, "weight heads.1.0.bias is [33], its config asks for [32]");
    m = init_medusa_weights(medusa, head, 1);
    m.output.pop_back();
    refuses([&] { check_medusa_weights(medusa, m); }, "output.2 is missing");
    m = init_medusa_weights(toy_medusa(HeadOutput::target), head, 1);
    m.heads.emplace_back(m.heads[0]);
    refuses([&] { check_medusa_weights(toy_medusa(HeadOutput::target), m); }, "4 heads");
    MedusaConfig bad = medusa;
    bad.vocabulary = {3, 2};
    refuses([&] { check_medusa_config(bad); }, "ascending");
    bad = medusa, bad.heads = 0;
    refuses([&] { check_medusa_config(bad); }, "heads is 0");
    bad = medusa, bad.accuracies = {{0.5}, {1.5}};
    refuses([&] { check_medusa_config(bad); }, "accuracy is 1.5");

    const HydraConfig hydra = toy_hydra(true);
    HydraWeights w = init_hydra_weights(hydra, head, 1);
    w.prefix.down = at::Tensor{};
    refuses([&] { check_hydra_weights(hydra, w); }, "prefix.down is missing");
    w = init_hydra_weights(hydra, head, 1);
    w.output_bias.push_back(at::zeros({20}));
    refuses([&] { check_hydra_weights(hydra, w); }, "weights, its config asks for");
    HydraConfig wrong = hydra;
    wrong.kv_heads = 3;
    refuses([&] { check_hydra_config(wrong); }, "cannot share");
    wrong = hydra, wrong.output_bias = true;
    refuses([&] { check_hydra_config(wrong); }, "output bias");
    wrong = hydra, wrong.feature_scale = 0;
    refuses([&] { check_hydra_config(wrong); }, "scales");
}
