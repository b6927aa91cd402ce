#include "alignment_reference.hpp"
#include "chi_square.hpp"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/alignment_sampling.hpp>
#include <outrider/tree/token_tree.hpp>

#include <algorithm>

using namespace outrider;
using namespace outrider::reference;

namespace {

constexpr auto kDraft = static_cast<std::uint64_t>(RandomPurpose::draft);

Prefix candidates_of(const BasicCtcFrames<float>& frames, const TokenTree& tree, const SampledDraft::Chain& chain) {
    Prefix prefix;
    for (const NodeIndex node : chain.nodes)
        prefix.push_back(static_cast<std::int32_t>(
            std::find(frames.tokens().begin(), frames.tokens().end(), tree.token(node)) - frames.tokens().begin()));
    return prefix;
}

template <typename Condition>
std::map<Prefix, double> draw_many(const CtcFrames& frames, int draws, std::size_t chains, std::size_t max_depth,
                                   Condition&& condition) {
    AlignmentSampler sampler;
    std::map<Prefix, double> counts;
    for (int i = 0; i < draws; ++i) {
        const SampledDraft draft = sampler.draw(0, frames, chains, max_depth, RandomKey(40, 0, i, kDraft), condition);
        for (const auto& chain : draft.chains) counts[candidates_of(frames, draft.tree, chain)] += 1;
    }
    return counts;
}

}  // namespace

TEST_CASE("collapsed samples have the law P, plain and conditioned; a wrong law is noticed") {
    Random random(41);
    for (const double other : {0.0, 0.5})
        for (int kind = 0; kind < 3; ++kind) {
            const auto frames = random_frames<float>(random, {4, 3, 1.0, other, 0.0});
            const Factor factor = kind == 0 ? Factor{} : kind == 1 ? label_factor(5) : prefix_factor(6);
            const Law law = enumerate(frames, factor);
            const auto counts = kind == 0 ? draw_many(frames, 60000, 1, 4, Unconditioned{})
                                          : draw_many(frames, 60000, 1, 4, condition_of<float>(factor));
            CHECK(chi_square(counts, law.exact).plausible());
            // Negative controls: the law of other frames, and (where there is one) of a forgotten condition.
            CHECK_FALSE(
                chi_square(counts, enumerate(random_frames<float>(random, {4, 3, 1.0, other, 0.0})).exact).plausible());
            if (kind > 0) CHECK_FALSE(chi_square(counts, enumerate(frames).exact).plausible());
            if (kind == 2 && other > 0) {
                const auto returning = draw_many(frames, 60000, 1, 4, condition_with_other<float>(factor));
                CHECK(chi_square(returning, enumerate(frames, factor, true).exact).plausible());
                CHECK_FALSE(chi_square(returning, law.exact).plausible());
            }
        }
}

TEST_CASE("several chains of one draft have the same law and are independent") {
    Random random(42);
    const auto frames = random_frames<float>(random, {3, 2, 1.0, 0.0, 0.0});
    const Law law = enumerate(frames), other = enumerate(random_frames<float>(random, {3, 2, 1.0, 0.0, 0.0}));
    AlignmentSampler sampler;
    const auto product_of = [&](const Law& second) {
        std::map<Prefix, double> product;
        for (const auto& [a, p] : law.exact)
            for (const auto& [b, q] : second.exact) {
                Prefix both = a;
                both.push_back(-7);
                both.insert(both.end(), b.begin(), b.end());
                product[both] = p * q;
            }
        return product;
    };
    std::map<Prefix, double> joint;
    for (int i = 0; i < 60000; ++i) {
        const SampledDraft draft = sampler.draw(0, frames, 2, 3, RandomKey(43, 0, i, kDraft));
        Prefix both = candidates_of(frames, draft.tree, draft.chains[0]);
        both.push_back(-7);
        const Prefix second = candidates_of(frames, draft.tree, draft.chains[1]);
        both.insert(both.end(), second.begin(), second.end());
        joint[both] += 1;
    }
    CHECK(chi_square(joint, product_of(law)).plausible());
    CHECK_FALSE(
        chi_square(joint, product_of(other)).plausible());  // the negative control: the second chain's is another
}

TEST_CASE("a draft's tree merges equal beginnings, carries exact log_q and marks cut chains") {
    Random random(44);
    AlignmentSampler sampler;
    std::size_t cut = 0, shared = 0;
    for (int trial = 0; trial < 300; ++trial) {
        const auto frames = random_frames<float>(random, {8, 12, 2.5, 0.0, 0.0});
        const Factor factor = prefix_factor(static_cast<std::uint64_t>(trial));
        const SampledDraft draft =
            sampler.draw(9, frames, 4, 3, RandomKey(45, 0, trial, kDraft), condition_of<float>(factor));
        REQUIRE(draft.chains.size() == 4);
        REQUIRE(draft.tree.token(0) == 9);
        REQUIRE(draft.tree.drafted() <= 12);
        std::size_t steps = 0;
        std::vector<bool> used(draft.tree.size(), false);
        for (const auto& chain : draft.chains) {
            REQUIRE(chain.nodes.size() <= 3);
            REQUIRE(chain.cut == (chain.nodes.size() == 3));
            cut += chain.cut;
            steps += chain.nodes.size();
            NodeIndex above = 0;
            std::vector<TokenId> path;
            for (const NodeIndex node : chain.nodes) {
                REQUIRE(draft.tree.parent(node) == above);
                above = node;
                used[static_cast<std::size_t>(node)] = true;
                path.push_back(draft.tree.token(node));
                const auto exact =
                    prefix_probability(frames, std::span<const TokenId>(path), condition_of<float>(factor));
                REQUIRE(double(draft.tree.log_q()[static_cast<std::size_t>(node)]) ==
                        Catch::Approx(exact.log_q.back()).margin(1e-5));
            }
        }
        shared += steps - draft.tree.drafted();
        REQUIRE(static_cast<std::size_t>(std::count(used.begin(), used.end(), true)) == draft.tree.drafted());
    }
    CHECK(cut > 0);
    CHECK(shared > 0);
}

TEST_CASE("the same key draws the same draft, and another purpose another one") {
    Random random(46);
    const auto frames = random_frames<float>(random, {8, 20, 1.0, 0.0, 0.0});
    AlignmentSampler sampler;
    const auto tokens = [&](std::uint64_t purpose) {
        const SampledDraft draft = sampler.draw(0, frames, 3, 8, RandomKey(1, 2, 3, purpose));
        return std::vector<TokenId>(draft.tree.tokens().begin(), draft.tree.tokens().end());
    };
    CHECK(tokens(3) == tokens(3));
    CHECK(tokens(3) != tokens(0));
}

TEST_CASE("degenerate frames give chains that end at the root") {
    AlignmentSampler sampler;
    const auto from = [](std::vector<TokenId> tokens, std::vector<float> pi, std::vector<float> blank) {
        return CtcFrames::from_probabilities(tokens, std::span<const float>(pi), std::span<const float>(blank));
    };
    const RandomKey key(1, 1, 1);
    for (const auto& frames : {from({}, {}, {}), from({}, {}, {1, 1}), from({3}, {0, 0}, {1, 1})}) {
        const SampledDraft draft = sampler.draw(5, frames, 2, 4, key);
        CHECK(draft.tree.size() == 1);
        CHECK(draft.chains.size() == 2);
        CHECK(draft.chains[0].nodes.empty());
    }
    const auto certain = from({3, 4}, {1, 0, 0, 1}, {0, 0});
    CHECK(sampler.draw(5, certain, 0, 4, key).tree.size() == 1);
    const SampledDraft none = sampler.draw(5, certain, 1, 0, key);
    CHECK(none.tree.size() == 1);
    CHECK(none.chains[0].cut);
    const SampledDraft both = sampler.draw(5, certain, 1, 4, key);
    CHECK(both.chains[0].nodes == std::vector<NodeIndex>{1, 2});
    CHECK_FALSE(both.chains[0].cut);
}
