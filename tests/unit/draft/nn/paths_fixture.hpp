// Paths of draft tokens with their probabilities, by plain loops.
#pragma once

#include <algorithm>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <outrider/tree/token_tree.hpp>

#include "heads_fixture.hpp"

namespace outrider::test {

using Path = std::vector<TokenId>;
/// log probabilities of the children of a path below the root.
using Conditional = std::function<Numbers(const Path&)>;

inline Numbers log_softmax(Numbers x) {
    double sum = 0;
    const double top = *std::max_element(x.begin(), x.end());
    for (const double v : x) sum += std::exp(v - top);
    for (double& v : x) v -= top + std::log(sum);
    return x;
}

/// Every path of at most `heads` tokens with its log probability, likeliest first.
inline std::vector<std::pair<double, Path>> all_paths(const Conditional& conditional,
                                                      std::span<const TokenId> vocabulary, std::size_t heads) {
    std::vector<std::pair<double, Path>> paths;
    const std::function<void(const Path&, double)> grow = [&](const Path& path, double above) {
        if (path.size() == heads) return;
        const Numbers q = conditional(path);
        for (std::size_t c = 0; c < vocabulary.size(); ++c) {
            Path longer = path;
            longer.push_back(vocabulary[c]);
            paths.emplace_back(above + q[c], longer);
            grow(longer, above + q[c]);
        }
    };
    grow({}, 0.0);
    std::sort(paths.begin(), paths.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    return paths;
}

inline void check_best(const TokenTree& tree, const std::vector<std::pair<double, Path>>& expected, std::size_t nodes,
                       double margin) {
    const auto got = paths_of(tree);
    REQUIRE(got.size() == nodes);
    for (std::size_t i = 0; i < nodes; ++i) {
        REQUIRE(got.contains(expected[i].second));
        CHECK(got.at(expected[i].second) == Catch::Approx(expected[i].first).margin(margin));
    }
}

}  // namespace outrider::test
