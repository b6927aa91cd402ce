#include <catch2/catch_test_macros.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/tree/tree_shape.hpp>

#include <algorithm>
#include <set>

using namespace outrider;
using Choice = TreeTemplate::Choice;

TEST_CASE("medusa63 has 63 nodes in four levels of ten ranks, every prefix present") {
    const TreeTemplate& shape = medusa63();
    REQUIRE(shape.size() == 63);
    std::vector<int> per_depth(5, 0);
    int largest = 0;
    const std::set<Choice> all(shape.choices().begin(), shape.choices().end());
    CHECK(all.size() == 63);
    for (std::size_t i = 0; i < shape.size(); ++i) {
        const Choice& choice = shape.choices()[i];
        ++per_depth[choice.size()];
        largest = std::max(largest, *std::max_element(choice.begin(), choice.end()));
        if (choice.size() == 1) {
            CHECK(shape.parent(i) == 0);
        } else {
            const Choice& parent = shape.choices()[static_cast<std::size_t>(shape.parent(i)) - 1];
            CHECK(parent == Choice(choice.begin(), choice.end() - 1));
            CHECK(static_cast<std::size_t>(shape.parent(i)) <= i);
        }
    }
    CHECK(per_depth == std::vector<int>{0, 10, 28, 23, 2});
    CHECK(largest == 9);
}

TEST_CASE("random prefix-closed sets are taken in any order and sorted breadth first") {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
        const RandomKey key(seed, 0, 0, 92);
        std::set<Choice> closed;
        for (std::uint64_t i = 0; i < 12; ++i) {
            Choice choice;
            for (std::uint64_t d = 0; d < 1 + key.bits(9 * i) % 4; ++d) {
                choice.push_back(static_cast<int>(key.bits(9 * i + d + 1) % 3));
                closed.insert(choice);
            }
        }
        std::vector<Choice> shuffled(closed.begin(), closed.end());
        for (std::size_t i = shuffled.size(); i > 1; --i) std::swap(shuffled[i - 1], shuffled[key.bits(500 + i) % i]);
        const TreeTemplate shape(shuffled, 3, 4);
        REQUIRE(std::set<Choice>(shape.choices().begin(), shape.choices().end()) == closed);
        for (std::size_t i = 0; i < shape.size(); ++i) {
            const Choice& choice = shape.choices()[i];
            if (i > 0) {
                const Choice& before = shape.choices()[i - 1];
                REQUIRE((before.size() < choice.size() || (before.size() == choice.size() && before < choice)));
            }
            const auto parent = static_cast<std::size_t>(shape.parent(i));
            REQUIRE((parent == 0) == (choice.size() == 1));
            if (parent > 0) REQUIRE(shape.choices()[parent - 1] == Choice(choice.begin(), choice.end() - 1));
        }
    }
}

TEST_CASE("a chain's shape is the first rank again and again") {
    CHECK(chain_template(0).size() == 0);
    const TreeTemplate chain = chain_template(4);
    REQUIRE(chain.size() == 4);
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(chain.choices()[i] == TreeTemplate::Choice(i + 1, 0));
        CHECK(chain.parent(i) == static_cast<NodeIndex>(i));
    }
}

TEST_CASE("sets that are no trees are refused") {
    CHECK_NOTHROW(TreeTemplate({{0}, {0, 1}}, 2, 2));
    CHECK_THROWS_AS(TreeTemplate({{0, 1}}, 2, 2), Error);                  // no parent
    CHECK_THROWS_AS(TreeTemplate({{1}, {0, 1}}, 2, 2), Error);             // another's parent
    CHECK_THROWS_AS(TreeTemplate({{0}, {0, 0}, {0, 0, 0}}, 2, 2), Error);  // too deep
    CHECK_THROWS_AS(TreeTemplate({{0}, {2}}, 2, 2), Error);                // rank out of range
    CHECK_THROWS_AS(TreeTemplate({{-1}}, 2, 2), Error);
    CHECK_THROWS_AS(TreeTemplate({{0}, {0}}, 2, 2), Error);  // twice
    CHECK_THROWS_AS(TreeTemplate({{}}, 2, 2), Error);        // the root is no choice
    CHECK(TreeTemplate({}, 2, 2).size() == 0);
}
