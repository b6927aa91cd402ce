// What drafted nodes turn out to be worth.
#include <catch2/catch_all.hpp>

#include <cmath>
#include <random>

#include <outrider/budget/detail/node_choice.hpp>
#include <outrider/budget/detail/scored_nodes.hpp>

using namespace outrider;
using namespace outrider::budget;

namespace {

SequenceTree tree(SequenceId sequence, std::vector<std::tuple<NodeIndex, TokenId, double>> nodes) {
    TokenTree::Builder builder(0);
    for (const auto& [parent, token, q] : nodes) (void)builder.add(parent, token, static_cast<float>(std::log(q)));
    return {sequence, std::move(builder).build()};
}

}  // namespace

TEST_CASE("a rate is hits over what was expected, beside a prior that fades", "[budget]") {
    HitRate rate;
    CHECK(rate(0.3, 8.0) == Catch::Approx(0.3));
    for (int i = 0; i < 4; ++i) rate.learn(1.0, 1.0, 512);
    CHECK(rate(0.3, 8.0) == Catch::Approx((4 + 2.4) / 12));
    for (int i = 0; i < 2000; ++i) rate.learn(1.0, i % 4 == 0 ? 1.0 : 0.0, 512);
    CHECK(rate(0.9, 8.0) == Catch::Approx(0.25).margin(0.03));
}

TEST_CASE("stated probabilities are corrected, kind by kind, and follow the text", "[budget]") {
    std::mt19937 engine(1);
    std::uniform_real_distribution<> uniform(0, 1);
    HitRates rates;
    CHECK(rates(1, 0.5) == Catch::Approx(0.5));
    CHECK(rates(1, 1.0) <= 0.995);
    for (int i = 0; i < 3000; ++i)
        rates.learn(1, 0.9, uniform(engine) < 0.45), rates.learn(2, 0.2, uniform(engine) < 0.2);
    CHECK(rates(1, 0.9) == Catch::Approx(0.45).margin(0.06));
    CHECK(rates(2, 0.2) == Catch::Approx(0.2).margin(0.06));
    const double before = rates(3, 0.6);  // a kind that was never seen, in an easy stretch
    for (int i = 0; i < 60; ++i) rates.learn(1, 0.4, true);
    CHECK(rates(3, 0.6) > before);
}

TEST_CASE("nodes come likeliest first, and every beginning of them is made of trees", "[budget]") {
    std::mt19937 engine(2);
    std::uniform_real_distribution<> uniform(0.01, 1);
    for (int trial = 0; trial < 200; ++trial) {
        std::vector<SequenceTree> trees;
        for (SequenceId s = 0; s < 3; ++s) {
            TokenTree::Builder builder(0);
            for (int i = 0; i < 12; ++i)
                (void)builder.add(static_cast<NodeIndex>(engine() % builder.size()), static_cast<TokenId>(engine() % 9),
                                  static_cast<float>(std::log(uniform(engine))));
            trees.push_back({s, std::move(builder).build()});
        }
        HitRates rates;
        for (int i = 0; i < 50; ++i) rates.learn(engine() % 5, uniform(engine), engine() % 3 == 0);
        const std::vector<Candidate> nodes = likeliest_first(trees, rates);
        std::vector<std::vector<bool>> there(3);
        for (std::size_t t = 0; t < 3; ++t) there[t].assign(trees[t].tree.size(), false), there[t][0] = true;
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            if (i > 0) REQUIRE(nodes[i].chance <= nodes[i - 1].chance);
            REQUIRE(there[nodes[i].tree][static_cast<std::size_t>(trees[nodes[i].tree].tree.parent(nodes[i].node))]);
            there[nodes[i].tree][static_cast<std::size_t>(nodes[i].node)] = true;
        }
        const std::size_t count = engine() % (nodes.size() + 1);
        const std::vector<SequenceTree> kept = keep(trees, std::span(nodes).first(count));
        std::size_t drafted = 0;
        for (const SequenceTree& t : kept) drafted += t.tree.drafted();
        REQUIRE(drafted == count);
    }
}

TEST_CASE("siblings claim no more than all together", "[budget]") {
    std::vector<SequenceTree> trees;
    trees.push_back(tree(1, {{0, 1, 0.9}, {0, 2, 0.9}}));
    const std::vector<Candidate> nodes = likeliest_first(trees, HitRates{});
    CHECK(nodes[0].chance + nodes[1].chance <= 0.996);
    CHECK(nodes[0].stated == Catch::Approx(0.9));
}

TEST_CASE("a draft is scored by the text that comes, verified or not", "[budget]") {
    HitRates verified, free;
    for (int i = 0; i < 100; ++i) {
        Outcomes outcomes;
        const std::vector<SequenceTree> drafted{tree(7, {{0, 1, 0.5}, {1, 2, 0.5}, {2, 3, 0.5}}),
                                                tree(8, {{0, 9, 0.5}})};
        outcomes.drafted(drafted);
        const std::vector<SequenceTree> plain{tree(7, {}), tree(8, {})};
        for (const TokenId token : {1, 2, 4, 3}) {  // round after round, nothing of the draft is verified
            outcomes.text(7, token, free);
            outcomes.text(99, token, free);  // a sequence that never drafted
            outcomes.drafted(plain);
        }
        verified.learn(1, 0.5, true), verified.learn(2, 0.5, true), verified.learn(3, 0.5, false);
    }
    for (int depth = 1; depth <= 3; ++depth)
        CHECK(free(depth, 0.5) == Catch::Approx(verified(depth, 0.5)).margin(0.01));
    Outcomes outcomes;  // a sequence that has left is forgotten
    outcomes.drafted(std::vector<SequenceTree>{tree(7, {{0, 1, 0.5}})});
    outcomes.drafted(std::vector<SequenceTree>{tree(8, {})});
    const double before = free(1, 0.5);
    outcomes.text(7, 1, free);
    CHECK(free(1, 0.5) == before);
}

TEST_CASE("as many nodes are verified as pay for their time", "[budget]") {
    const std::vector<PassTime> flat{{1, 1.0}, {8, 1.01}, {64, 2.0}}, steep{{1, 1.0}, {2, 1.6}, {8, 5.0}, {64, 40.0}};
    std::vector<SequenceTree> trees;
    trees.push_back(tree(1, {{0, 1, 0.7}, {1, 2, 0.7}, {2, 3, 0.7}, {0, 4, 0.1}, {0, 5, 0.05}}));
    const std::vector<Candidate> nodes = likeliest_first(trees, HitRates{});
    NodeChoice choice;
    CHECK(choice(nodes, PassCost(flat), 1, 1.0) == 5);
    CHECK(choice.value() > 1.4);
    NodeChoice careful;
    CHECK(careful(nodes, PassCost(steep), 1, 1.0) == 1);
    NodeChoice fast;  // where much comes out of each second, a second has to bring more
    CHECK(fast(nodes, PassCost(steep), 1, 1.5) == 0);
    CHECK(fast.value() > 0);  // against plain decoding it would pay
    std::size_t others = 0;   // now and then another size, for what it really takes
    const PassCost cost(steep);
    for (int i = 0; i < 400; ++i) {
        careful.pass();
        others += careful(nodes, cost, 1, 1.0) != 1 ? 1 : 0;
    }
    CHECK(others > 1);
    CHECK(others < 40);
}
