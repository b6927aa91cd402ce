#include "random_tree.hpp"

#include <catch2/catch_test_macros.hpp>
#include <outrider/tree/token_tree.hpp>

#include <algorithm>

using namespace outrider;
using namespace outrider::reference;

TEST_CASE("positions, visibility, paths and leaves equal their definitions on the parent array") {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        // Sizes on both sides of a 64-bit word, and several words.
        const std::size_t nodes = seed < 6 ? 61 + seed : seed * 4;
        const PlainTree plain = random_plain_tree(seed, nodes, seed % 2 == 0);
        const TokenTree tree = build(plain);
        const std::size_t n = plain.parents.size();
        const auto place = positions(tree, 1000);
        const Visibility visibility(tree.parents());
        REQUIRE(place.size() == n);
        REQUIRE(visibility.words() == (n + 63) / 64);
        std::vector<NodeIndex> childless;
        for (std::size_t i = 0; i < n; ++i) {
            std::vector<NodeIndex> path;  // from the node up, without the root
            std::vector<bool> seen(n, false);
            seen[i] = true;
            for (auto node = static_cast<NodeIndex>(i); plain.parents[static_cast<std::size_t>(node)] != kNoNode;
                 node = plain.parents[static_cast<std::size_t>(node)]) {
                path.push_back(node);
                seen[static_cast<std::size_t>(plain.parents[static_cast<std::size_t>(node)])] = true;
            }
            std::reverse(path.begin(), path.end());
            REQUIRE(place[i] == 1000 + static_cast<std::int64_t>(path.size()));
            REQUIRE(path_to(tree, static_cast<NodeIndex>(i)) == path);
            const auto row = visibility.row(static_cast<NodeIndex>(i));
            for (std::size_t j = 0; j < n; ++j) {
                REQUIRE(visibility.sees(static_cast<NodeIndex>(i), static_cast<NodeIndex>(j)) == seen[j]);
                REQUIRE(((row[j / 64] >> (j % 64)) & 1U) == (seen[j] ? 1U : 0U));
            }
            for (std::size_t j = n; j < 64 * row.size(); ++j) REQUIRE(((row[j / 64] >> (j % 64)) & 1U) == 0U);
            if (std::find(plain.parents.begin(), plain.parents.end(), static_cast<NodeIndex>(i)) == plain.parents.end())
                childless.push_back(static_cast<NodeIndex>(i));
        }
        REQUIRE(leaves(tree) == childless);
    }
}

TEST_CASE("the layout of the root alone") {
    const TokenTree tree = TokenTree::root_only(3);
    CHECK(positions(tree, 7) == std::vector<std::int64_t>{7});
    CHECK(Visibility(tree.parents()).sees(0, 0));
    CHECK(path_to(tree, 0).empty());
    CHECK(leaves(tree) == std::vector<NodeIndex>{0});
}
