#include <ATen/ATen.h>
#include <catch2/catch_all.hpp>

#include <cmath>
#include <limits>

#include <outrider/accept/policy.hpp>
#include <outrider/core/error.hpp>
#include <outrider/engine/make_policy.hpp>

using namespace outrider;
using Catch::Matchers::ContainsSubstring;

namespace {

/// Accepted nodes of a chain 0, 1, 2 whose target would say 3 with twice the logit each time.
std::size_t accepted(const AcceptancePolicy& policy, double temperature = 0.0) {
    TokenTree::Builder builder(5);
    builder.add(builder.add(builder.add(0, 0, -0.1F), 1, -0.1F), 2, -0.1F);
    const TokenTree tree = std::move(builder).build();
    at::Tensor logits = at::zeros({4, 6});
    for (std::int64_t i = 0; i < 4; ++i) logits[i][3] = 2.0, logits[i][i] = 1.0;
    const SamplingOptions sampling{.temperature = temperature};
    const std::vector<TokenId> text{1, 5};
    const DraftSamples samples = DraftSamples::chosen(tree);
    return policy.accept(tree, {logits, {}}, {1, &sampling, text, &samples}).path.size();
}

}  // namespace

TEST_CASE("every policy has a name, and its facts are true") {
    for (const PolicyInfo& policy : policies()) {
        CAPTURE(policy.name);
        const auto made = make_policy(policy.name);
        const auto takes = [&](DraftDraws draws) {
            try {
                made->check_draws(draws);
                return true;
            } catch (const Error&) {
                return false;
            }
        };
        CHECK(takes(DraftDraws::none) == !policy.needs_draws);
        CHECK(takes(DraftDraws::independent) == !policy.one_chain);
        for (const DraftDraws draws :
             {DraftDraws::unknown, DraftDraws::no_nodes, DraftDraws::certain, DraftDraws::chain})
            CHECK(takes(draws));
        CHECK((promise_at(policy, 0.0) == TextPromise::lossy) == policy.name.starts_with("lossy_"));
        CHECK((promise_at(policy, 0.7) == TextPromise::same_text) == (policy.name == "match"));
        if (policy.promise != TextPromise::lossy) CHECK(accepted(*made) == 0);  // the greedy text
    }
    CHECK_FALSE([] {
        try {
            make_policy("kseq")->check_draws(DraftDraws::without_replacement);
            return true;
        } catch (const Error&) {
            return false;
        }
    }());
    CHECK_THROWS_WITH(make_policy("lossless"), ContainsSubstring("traversal"));
    CHECK_THROWS_WITH(policy_info("top_k"), ContainsSubstring("lossy_top_k"));
}

TEST_CASE("options reach the lossy policies") {
    CHECK(accepted(*make_policy("lossy_top_k", {.top_k = 1})) == 0);
    CHECK(accepted(*make_policy("lossy_top_k", {.top_k = 2})) == 3);
    CHECK(accepted(*make_policy("lossy_top_k", {.top_k = 1, .minimum_block = 3})) == 2);
    CHECK(accepted(*make_policy("lossy_top_beta", {.top_beta = {.beta = 2, .tau = 0.9}})) == 0);
    CHECK(accepted(*make_policy("lossy_top_beta", {.top_beta = {.beta = 2, .tau = 1.1}})) == 3);
    CHECK(accepted(*make_policy("lossy_distance", {.distance = 0})) == 0);
    CHECK(accepted(*make_policy("lossy_distance", {.distance = 3})) == 3);
    CHECK(accepted(*make_policy("lossy_typical", {.typical = {.eps = 0.5, .delta = 9}}), 1.0) == 0);
    CHECK(accepted(*make_policy("lossy_typical", {.typical = {.eps = 0.1, .delta = 9}}), 1.0) == 3);
}

TEST_CASE("options out of range are refused") {
    CHECK_THROWS_AS(make_policy("match", {.top_k = 0}), Error);
    CHECK_THROWS_AS(make_policy("lossy_typical", {.typical = {.eps = 1.5}}), Error);
    CHECK_THROWS_AS(make_policy("lossy_top_beta", {.top_beta = {.tau = std::nan("")}}), Error);
    CHECK_THROWS_AS(make_policy("lossy_distance", {.distance = -1}), Error);
    CHECK_THROWS_AS(make_policy("lossy_top_k", {.minimum_block = 0}), Error);
}
