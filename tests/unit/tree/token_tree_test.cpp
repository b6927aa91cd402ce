#include "random_tree.hpp"

#include <catch2/catch_test_macros.hpp>
#include <outrider/tree/token_tree.hpp>

#include <algorithm>
#include <set>

using namespace outrider;
using namespace outrider::reference;

TEST_CASE("a built tree holds what was added, with depths and children by their definition") {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        const PlainTree plain = random_plain_tree(seed, 1 + seed * 2, seed % 2 == 0);
        const TokenTree tree = build(plain);
        REQUIRE(tree.size() == plain.parents.size());
        REQUIRE(tree.drafted() + 1 == tree.size());
        NodeIndex height = 0;
        for (NodeIndex node = 0; node < static_cast<NodeIndex>(tree.size()); ++node) {
            const auto i = static_cast<std::size_t>(node);
            REQUIRE(tree.token(node) == plain.tokens[i]);
            REQUIRE(tree.tokens()[i] == plain.tokens[i]);
            REQUIRE(tree.parent(node) == plain.parents[i]);
            REQUIRE(tree.log_q()[i] == plain.log_q[i]);
            NodeIndex depth = 0;
            for (NodeIndex up = plain.parents[i]; up != kNoNode; up = plain.parents[static_cast<std::size_t>(up)])
                ++depth;
            REQUIRE(tree.depth(node) == depth);
            REQUIRE(tree.depths()[i] == depth);
            height = std::max(height, depth);
            for (TokenId token = 0; token < 8; ++token) {
                NodeIndex expected = kNoNode;
                for (std::size_t j = 0; j < plain.parents.size(); ++j)
                    if (plain.parents[j] == node && plain.tokens[j] == token) expected = static_cast<NodeIndex>(j);
                REQUIRE(tree.child(node, token) == expected);
            }
        }
        REQUIRE(tree.height() == height);
    }
}

TEST_CASE("adding a token that is there returns its node and changes nothing") {
    TokenTree::Builder builder(5);
    const NodeIndex a = builder.add(0, 5, -0.1F);
    const NodeIndex b = builder.add(a, 6, -0.2F);
    CHECK(builder.add(0, 5, -9.0F) == a);
    CHECK(builder.add(a, 6, -9.0F) == b);
    CHECK(builder.add(b, 6, -0.3F) != b);
    CHECK(builder.size() == 4);
    CHECK(builder.view().log_q()[static_cast<std::size_t>(a)] == -0.1F);
    CHECK(std::move(builder).build().size() == 4);
}

TEST_CASE("random adds, duplicates included, give one node for each distinct path") {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        const RandomKey key(seed, 1, 0, 91);
        TokenTree::Builder builder(0);
        std::set<std::vector<TokenId>> paths{{}};
        for (std::uint64_t i = 0; i < 60; ++i) {  // paths added token by token
            std::vector<TokenId> path;
            NodeIndex at = 0;
            for (std::uint64_t d = 0; d < 1 + key.bits(10 * i) % 4; ++d) {
                path.push_back(static_cast<TokenId>(key.bits(10 * i + d + 1) % 3));
                at = builder.add(at, path.back(), -1.0F);
                paths.insert(path);
            }
        }
        const TokenTree tree = std::move(builder).build();
        REQUIRE(tree.size() == paths.size());
        std::set<std::vector<TokenId>> found;
        for (NodeIndex node = 0; node < static_cast<NodeIndex>(tree.size()); ++node) {
            std::vector<TokenId> path;
            for (NodeIndex up = node; up != 0; up = tree.parent(up)) path.insert(path.begin(), tree.token(up));
            found.insert(path);
        }
        REQUIRE(found == paths);
    }
}

TEST_CASE("a builder refuses parents that do not exist and tokens that are none") {
    TokenTree::Builder builder(1);
    CHECK_THROWS_AS(builder.add(1, 2, 0.0F), Error);
    CHECK_THROWS_AS(builder.add(-1, 2, 0.0F), Error);
    CHECK_THROWS_AS(builder.add(0, -1, 0.0F), Error);
    CHECK(builder.size() == 1);
    CHECK(builder.add(0, 2, 0.0F) == 1);
}

TEST_CASE("root_only is the tree of plain decoding") {
    const TokenTree tree = TokenTree::root_only(42);
    CHECK(tree.size() == 1);
    CHECK(tree.drafted() == 0);
    CHECK(tree.token(0) == 42);
    CHECK(tree.parent(0) == kNoNode);
    CHECK(tree.height() == 0);
    CHECK(tree.child(0, 42) == kNoNode);
}
