#include <catch2/catch_test_macros.hpp>

#include <fmt/format.h>

#include <tree_drawing.hpp>

#include <cmath>
#include <string>
#include <vector>

using namespace outrider;

TEST_CASE("a tree is drawn with its accepted path, children in node order") {
    TokenTree::Builder builder(1);
    const NodeIndex a = builder.add(0, 2, std::log(0.5F));
    builder.add(0, 3, std::log(0.25F));
    const NodeIndex c = builder.add(a, 4, 0.0F);
    builder.add(a, 5, std::log(0.125F));
    builder.add(c, 6, std::log(0.1F));
    const TokenTree tree = std::move(builder).build();
    const std::vector<NodeIndex> path = {a, c};
    const auto text = [](TokenId token) { return fmt::format("t{}", token); };
    CHECK(cli::draw_tree(tree, path, text) ==
          "* t1\n"
          "├─* t2  0.500\n"
          "│  ├─* t4  1.000\n"
          "│  │  └── t6  0.100\n"
          "│  └── t5  0.125\n"
          "└── t3  0.250\n");
    CHECK(cli::draw_tree(TokenTree::root_only(9), {}, text) == "* t9\n");
}
