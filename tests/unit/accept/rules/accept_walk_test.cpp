#include "../../tree/random_tree.hpp"

#include <catch2/catch_test_macros.hpp>
#include <outrider/accept/rules/detail/accept_walk.hpp>

#include <algorithm>

using namespace outrider;
using namespace outrider::reference;

TEST_CASE("the walk keeps the longest path of picks, asks once per node on it, and returns the pick after it") {
    std::size_t accepted = 0, empty = 0;
    for (std::uint64_t seed = 0; seed < 400; ++seed) {
        const PlainTree plain = random_plain_tree(seed, seed % 60, seed % 3 != 0);
        const TokenTree tree = build(plain);
        const RandomKey key(seed, 2, 0, 93);
        std::vector<TokenId> picks;
        for (std::size_t i = 0; i < tree.size(); ++i) picks.push_back(static_cast<TokenId>(key.bits(i) % 9));
        std::vector<NodeIndex> asked;
        const Acceptance result = accept_walk(tree, [&](NodeIndex node) {
            asked.push_back(node);
            return picks[static_cast<std::size_t>(node)];
        });

        // The slow way: of all nodes whose whole path was picked, the deepest.
        std::vector<NodeIndex> longest;
        for (std::size_t i = 1; i < tree.size(); ++i) {
            std::vector<NodeIndex> path;
            bool picked = true;
            for (auto node = static_cast<NodeIndex>(i); node != 0;
                 node = plain.parents[static_cast<std::size_t>(node)]) {
                path.insert(path.begin(), node);
                const auto parent = static_cast<std::size_t>(plain.parents[static_cast<std::size_t>(node)]);
                picked = picked && picks[parent] == plain.tokens[static_cast<std::size_t>(node)];
            }
            if (picked && path.size() > longest.size()) longest = path;
        }
        REQUIRE(result.path == longest);
        const NodeIndex last = longest.empty() ? 0 : longest.back();
        REQUIRE(result.pending == picks[static_cast<std::size_t>(last)]);
        std::vector<NodeIndex> visited{0};
        visited.insert(visited.end(), longest.begin(), longest.end());
        REQUIRE(asked == visited);
        accepted += longest.size();
        empty += longest.empty();
    }
    CHECK(accepted > 100);
    CHECK(empty > 50);
}

TEST_CASE("a chain that is picked whole is accepted whole") {
    TokenTree::Builder builder(1);
    NodeIndex at = 0;
    for (const TokenId token : {2, 3, 4}) at = builder.add(at, token, 0.0F);
    builder.add(0, 9, 0.0F);
    const TokenTree tree = std::move(builder).build();
    const Acceptance result = accept_walk(tree, [&](NodeIndex node) { return tree.token(node) + 1; });
    CHECK(result.path == std::vector<NodeIndex>{1, 2, 3});
    CHECK(result.pending == 5);
    CHECK(accept_walk(TokenTree::root_only(7), [](NodeIndex) { return 8; }).pending == 8);
}
