#include <catch2/catch_all.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include <outrider/tree/detail/keep_best.hpp>

using namespace outrider;

namespace {

struct Node {
    NodeIndex parent = 0;
    double path = 0;
};

/// Paths of coarse values, so that ties occur; some nodes are left out, with all below them.
std::vector<Node> random_draft(std::mt19937& random) {
    std::vector<Node> nodes{{kNoNode, 0.0}};
    const std::size_t size = 1 + random() % 40;
    while (nodes.size() < size) {
        const auto parent = static_cast<NodeIndex>(random() % nodes.size());
        double path = nodes[static_cast<std::size_t>(parent)].path - static_cast<double>(random() % 3);
        if (random() % 9 == 0)
            path =
                random() % 2 == 0 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
        nodes.push_back({parent, path});
    }
    return nodes;
}

}  // namespace

TEST_CASE("keep_best keeps the likeliest nodes, earlier ones of equals, and is closed", "[tree]") {
    std::mt19937 random(11);
    for (int trial = 0; trial < 500; ++trial) {
        const std::vector<Node> nodes = random_draft(random);
        const auto most = static_cast<std::int64_t>(random() % 45) - 2;
        std::vector<std::size_t> asked;
        const TokenTree tree = keep_best(
            7, nodes.size(), most, [&](std::size_t i) { return nodes[i].path; },
            [&](std::size_t i) {
                asked.push_back(i);
                return DraftNode{nodes[i].parent, static_cast<TokenId>(100 + i), -1.0F};
            });
        // One at a time: the largest that is left, the first of equals.
        std::set<std::size_t> left;
        for (std::size_t i = 1; i < nodes.size(); ++i)
            if (std::isfinite(nodes[i].path)) left.insert(i);
        std::vector<std::size_t> expected;
        while (!left.empty() && static_cast<std::int64_t>(expected.size()) < most) {
            const auto best = std::max_element(left.begin(), left.end(),
                                               [&](auto a, auto b) { return nodes[a].path < nodes[b].path; });
            expected.push_back(*best);
            left.erase(best);
        }
        REQUIRE(asked == expected);
        REQUIRE(tree.drafted() == expected.size());
        REQUIRE(tree.token(0) == 7);
        for (std::size_t k = 0; k < expected.size(); ++k) {
            const auto node = static_cast<NodeIndex>(k + 1);
            REQUIRE(tree.token(node) == static_cast<TokenId>(100 + expected[k]));
            const NodeIndex parent = nodes[expected[k]].parent;
            REQUIRE(tree.token(tree.parent(node)) == (parent == 0 ? 7 : 100 + parent));
        }
    }
}
