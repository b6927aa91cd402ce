#include <catch2/catch_test_macros.hpp>

#include <vector>

#include <outrider/tree/detail/subtree.hpp>

using namespace outrider;

TEST_CASE("subtree drops nodes with all that stands below them, and nothing else", "[tree]") {
    TokenTree::Builder builder(9);
    const NodeIndex a = builder.add(0, 1, -0.5F), b = builder.add(0, 2, -0.25F);
    builder.add(builder.add(b, 3, -1.0F), 4, -2.0F);
    builder.add(a, 5, -3.0F);
    const TokenTree tree = std::move(builder).build();
    const auto tokens = [](const TokenTree& t) { return std::vector<TokenId>(t.tokens().begin(), t.tokens().end()); };
    const auto to_depth = [&](NodeIndex most) {
        return subtree(tree, [most](const TokenTree& t, NodeIndex node) { return t.depth(node) <= most; });
    };
    CHECK(tokens(to_depth(0)) == std::vector<TokenId>{9});
    CHECK(tokens(to_depth(1)) == std::vector<TokenId>{9, 1, 2});
    const TokenTree two = to_depth(2);
    CHECK(tokens(two) == std::vector<TokenId>{9, 1, 2, 3, 5});
    CHECK(std::vector<NodeIndex>(two.parents().begin(), two.parents().end()) ==
          std::vector<NodeIndex>{kNoNode, 0, 0, 2, 1});
    CHECK(two.log_q()[4] == -3.0F);
    CHECK(tokens(to_depth(3)) == tokens(tree));
    const auto without = [&](TokenId token) {
        return tokens(subtree(tree, [token](const TokenTree& t, NodeIndex node) { return t.token(node) != token; }));
    };
    CHECK(without(2) == std::vector<TokenId>{9, 1, 5});
    CHECK(without(4) == std::vector<TokenId>{9, 1, 2, 3, 5});
}
