// Product trees against enumeration, static shapes, shapes from accuracies.
#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <outrider/core/error.hpp>
#include <outrider/tree/token_tree.hpp>
#include <outrider/tree/tree_shape.hpp>
#include <random>

using namespace outrider;

namespace {

using Path = std::vector<TokenId>;

/// Random falling lists; tokens differ from depth to depth.
std::vector<RankedTokens> random_depths(std::mt19937& random, std::size_t depths, std::size_t ranks) {
    std::vector<RankedTokens> all(depths);
    for (std::size_t d = 0; d < depths; ++d) {
        std::vector<float> q(ranks);
        for (float& x : q) x = std::uniform_real_distribution<float>(0.01F, 1.0F)(random);
        std::sort(q.rbegin(), q.rend());
        for (std::size_t r = 0; r < ranks; ++r) {
            all[d].tokens.push_back(static_cast<TokenId>(10 * d + r));
            all[d].log_q.push_back(std::log(q[r] / static_cast<float>(ranks)));
        }
    }
    return all;
}

/// Every path and its log probability.
std::vector<std::pair<double, Path>> all_paths(const std::vector<RankedTokens>& depths) {
    std::vector<std::pair<double, Path>> paths;
    const std::function<void(const Path&, double)> grow = [&](const Path& path, double above) {
        if (path.size() == depths.size()) return;
        const RankedTokens& list = depths[path.size()];
        for (std::size_t r = 0; r < list.tokens.size(); ++r) {
            Path longer = path;
            longer.push_back(list.tokens[r]);
            paths.emplace_back(above + static_cast<double>(list.log_q[r]), longer);
            grow(longer, paths.back().first);
        }
    };
    grow({}, 0.0);
    std::sort(paths.begin(), paths.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    return paths;
}

std::map<Path, double> paths_of(const TokenTree& tree) {
    std::map<Path, double> paths;
    for (NodeIndex n = 1; n < static_cast<NodeIndex>(tree.size()); ++n) {
        Path path;
        double sum = 0;
        for (const NodeIndex step : path_to(tree, n))
            path.push_back(tree.token(step)), sum += static_cast<double>(tree.log_q()[static_cast<std::size_t>(step)]);
        paths[path] = sum;
    }
    return paths;
}

}  // namespace

TEST_CASE("product_tree holds the likeliest of all paths") {
    std::mt19937 random(7);
    for (const std::int64_t nodes : {1, 2, 7, 20, 60})
        for (int trial = 0; trial < 20; ++trial) {
            const auto depths = random_depths(random, 1 + random() % 4, 1 + random() % 5);
            const auto expected = all_paths(depths);
            const auto got = paths_of(product_tree(99, depths, nodes));
            const std::size_t count = std::min(static_cast<std::size_t>(nodes), expected.size());
            REQUIRE(got.size() == count);
            for (std::size_t i = 0; i < count; ++i) {
                REQUIRE(got.contains(expected[i].second));
                CHECK(got.at(expected[i].second) == Catch::Approx(expected[i].first).margin(1e-5));
            }
        }
}

TEST_CASE("product_tree: depths that say nothing end the tree") {
    std::vector<RankedTokens> depths{{{1, 2}, {-0.5F, -1.0F}}, {{}, {}}, {{3}, {0.0F}}};
    CHECK(product_tree(0, depths, 10).height() == 1);
    CHECK(product_tree(0, depths, 10).drafted() == 2);
    CHECK(product_tree(0, depths, 0).drafted() == 0);
    CHECK(product_tree(0, depths, -3).drafted() == 0);
    CHECK(product_tree(0, {}, 4).drafted() == 0);
    depths[0].log_q[1] = -std::numeric_limits<float>::infinity();
    CHECK(product_tree(0, depths, 10).drafted() == 1);
}

TEST_CASE("template_tree takes the ranks of a shape, and the likeliest of them where the budget is smaller") {
    std::mt19937 random(3);
    const TreeTemplate shape({{0}, {1}, {0, 0}, {0, 2}, {1, 0}, {0, 0, 1}}, 3, 3);
    const auto depths = random_depths(random, 3, 3);
    const std::map<Path, double> whole = paths_of(template_tree(5, depths, shape, 100));
    const std::vector<Path> expected{{0}, {1}, {0, 10}, {0, 12}, {1, 10}, {0, 10, 21}};
    REQUIRE(whole.size() == expected.size());
    for (const Path& path : expected) CHECK(whole.contains(path));
    std::vector<double> sums;
    for (const auto& [path, sum] : whole) sums.push_back(sum);
    std::sort(sums.rbegin(), sums.rend());
    for (const auto& [path, sum] : paths_of(template_tree(5, depths, shape, 4))) CHECK(sum >= sums[3] - 1e-6);
    CHECK(template_tree(5, depths, shape, 4).drafted() == 4);
    // Lists shorter than the shape.
    const std::vector<RankedTokens> shorter{{{4}, {-1.0F}}, {{5, 6}, {-1.0F, -2.0F}}};
    const auto rest = paths_of(template_tree(5, shorter, shape, 100));
    CHECK(rest.size() == 2);
    CHECK(rest.contains(Path{4, 5}));
}

TEST_CASE("measured_template keeps the most tokens by the accuracies") {
    std::mt19937 random(11);
    for (int trial = 0; trial < 30; ++trial) {
        std::vector<std::vector<double>> accuracies(1 + random() % 4);
        for (auto& depth : accuracies)
            for (std::size_t r = 0; r < 1 + random() % 4; ++r)
                depth.push_back(std::uniform_real_distribution<double>(0, 0.6)(random));
        std::vector<double> all;
        const std::function<void(std::size_t, double)> grow = [&](std::size_t depth, double value) {
            if (depth == accuracies.size()) return;
            for (const double share : accuracies[depth]) all.push_back(value * share), grow(depth + 1, all.back());
        };
        grow(0, 1.0);
        std::sort(all.rbegin(), all.rend());
        const std::size_t nodes = 1 + random() % 20;
        const TreeTemplate shape = measured_template(accuracies, static_cast<std::int64_t>(nodes));
        double best = 0, got = 0;
        for (std::size_t i = 0; i < std::min(nodes, all.size()); ++i) best += all[i];
        for (const TreeTemplate::Choice& choice : shape.choices()) {
            double value = 1;
            for (std::size_t d = 0; d < choice.size(); ++d) value *= accuracies[d][static_cast<std::size_t>(choice[d])];
            got += value;
        }
        CHECK(shape.size() == std::min(nodes, all.size()));
        CHECK(got == Catch::Approx(best));
    }
    CHECK(measured_template({}, 5).size() == 0);
    const std::vector<std::vector<double>> zeros{{0.0, 0.5}, {0.0}};
    CHECK(measured_template(zeros, 5).choices() == std::vector<TreeTemplate::Choice>{{1}});
}
