#include "alignment_reference.hpp"

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <outrider/ctc/frames.hpp>
#include <outrider/ctc/prefix_tree.hpp>
#include <outrider/ctc/static_tree.hpp>
#include <outrider/tree/token_tree.hpp>

#include <algorithm>
#include <set>

using namespace outrider;
using namespace outrider::reference;

namespace {

using Path = std::vector<TokenId>;

/// The definition: rank, choose, collapse, close under prefixes.
std::set<Path> expected_paths(const BasicCtcFrames<double>& frames, const TreeTemplate& shape) {
    std::set<Path> paths;
    for (const auto& choice : shape.choices()) {
        Path alignment;
        for (std::size_t t = 0; t < choice.size() && t < frames.frames(); ++t) {
            std::vector<std::pair<double, TokenId>> ranked{{-frames.blank(t), kBlank}};
            for (std::size_t c = 0; c < frames.candidates(); ++c)
                ranked.emplace_back(-frames.pi(t, c), frames.tokens()[c]);
            std::stable_sort(ranked.begin(), ranked.end(), [](auto& a, auto& b) { return a.first < b.first; });
            const auto rank = static_cast<std::size_t>(choice[t]);
            if (rank >= ranked.size() || ranked[rank].first == 0) break;
            alignment.push_back(ranked[rank].second);
        }
        if (alignment.size() != choice.size()) continue;
        const Path path = collapse(alignment);
        for (std::size_t k = 1; k <= path.size(); ++k)
            paths.insert(Path(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(k)));
    }
    return paths;
}

std::set<Path> paths_of(const TokenTree& tree) {
    std::set<Path> paths;
    for (NodeIndex node = 1; node < static_cast<NodeIndex>(tree.size()); ++node) {
        Path path;
        for (const NodeIndex step : path_to(tree, node)) path.push_back(tree.token(step));
        paths.insert(path);
    }
    return paths;
}

double mass(const TokenTree& tree) {
    std::vector<double> psi(tree.size(), 1.0);
    double sum = 0;
    for (std::size_t i = 1; i < tree.size(); ++i) {
        psi[i] = psi[static_cast<std::size_t>(tree.parents()[i])] * std::exp(double(tree.log_q()[i]));
        sum += psi[i];
    }
    return sum;
}

}  // namespace

TEST_CASE("the static tree holds what its choices collapse to, once each, with exact log_q") {
    Random random(30);
    BasicStaticPrefixTree<double> builder;
    std::size_t merged = 0;
    for (int trial = 0; trial < 60; ++trial) {
        const auto frames = random_frames<double>(random, {1 + random.below(8), 1 + random.below(30), 2.5,
                                                           trial % 3 == 0 ? 0.3 : 0.0, trial % 4 == 0 ? 0.4 : 0.0});
        const auto expected = expected_paths(frames, medusa63());
        const bool conditioned = trial % 2 == 1;
        const Factor factor = conditioned ? prefix_factor(static_cast<std::uint64_t>(trial)) : Factor{};
        const TokenTree tree = conditioned ? builder.tree(3, frames, medusa63(), 63, condition_of<double>(factor))
                                           : builder.tree(3, frames, medusa63(), 63);
        REQUIRE(paths_of(tree) == expected);
        REQUIRE(tree.drafted() == expected.size());  // no doubles
        merged += 63 - expected.size();
        for (NodeIndex node = 1; node < static_cast<NodeIndex>(tree.size()); ++node) {
            Path path;
            for (const NodeIndex step : path_to(tree, node)) path.push_back(tree.token(step));
            const auto exact =
                conditioned ? prefix_probability(frames, std::span<const TokenId>(path), condition_of<double>(factor))
                            : prefix_probability(frames, std::span<const TokenId>(path));
            REQUIRE(double(tree.log_q()[static_cast<std::size_t>(node)]) ==
                    Catch::Approx(exact.log_q.back()).margin(1e-6));
        }
    }
    CHECK(merged > 0);
}

TEST_CASE("a smaller budget keeps the most probable nodes, and best-first is never worse") {
    Random random(31);
    StaticPrefixTree builder;
    PrefixTreeSearch search;
    double gain = 0;
    for (int trial = 0; trial < 40; ++trial) {
        const auto frames = random_frames<float>(random, {8, 40, 3.0, 0.0, 0.0});
        const TokenTree whole = builder.tree(0, frames, medusa63(), 63);
        for (const std::int64_t nodes : {0, 1, 6, 16, 63}) {
            const TokenTree tree = builder.tree(0, frames, medusa63(), nodes);
            CHECK(tree.drafted() == std::min(whole.drafted(), static_cast<std::size_t>(nodes)));
            const auto kept = paths_of(tree), all = paths_of(whole);
            CHECK(std::includes(all.begin(), all.end(), kept.begin(), kept.end()));
            const double best = mass(search.tree(0, frames, static_cast<std::int64_t>(tree.drafted())));
            CHECK(mass(tree) <= best * (1 + 1e-5));
            gain += best - mass(tree);
        }
        // What was left out is no more probable than what was kept.
        const TokenTree sixteen = builder.tree(0, frames, medusa63(), 16);
        CHECK(mass(whole) - mass(sixteen) <=
              mass(sixteen) * double(whole.drafted() - sixteen.drafted()) / double(sixteen.drafted()) + 1e-6);
    }
    CHECK(gain > 1.0);
}

TEST_CASE("degenerate frames give a static tree of the root alone") {
    StaticPrefixTree builder;
    const auto from = [](std::vector<TokenId> tokens, std::vector<float> pi, std::vector<float> blank) {
        return CtcFrames::from_probabilities(tokens, std::span<const float>(pi), std::span<const float>(blank));
    };
    CHECK(builder.tree(0, from({}, {}, {}), medusa63(), 63).size() == 1);
    CHECK(builder.tree(0, from({}, {}, {1.0F}), medusa63(), 63).size() == 1);
    CHECK(builder.tree(0, from({4}, {0.0F}, {1.0F}), medusa63(), 63).size() == 1);
    CHECK(builder.tree(0, from({4}, {1.0F}, {0.0F}), medusa63(), 63).size() == 2);
}
