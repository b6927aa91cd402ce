#include <catch2/catch_all.hpp>

#include <cmath>
#include <functional>
#include <random>

#include <outrider/decode/tree_budget.hpp>

using namespace outrider;

namespace {

/// A world without a model: a pass over n rows takes `pass(n)`, a draft `draft` seconds, and the next token is the
/// drafter's i-th guess with probability `guess[i]`, whatever the depth.
struct World {
    std::function<double(std::int64_t)> pass;
    double draft = 0;
    std::vector<double> guess;
    double overstated = 1.0;  ///< the drafter's log_q claims guess^(1 / overstated)
};

/// Tokens a second of `rounds` rounds of a batch under a budget; the first `warm` are not counted.
double speed(const World& world, TreeBudget budget, std::size_t sequences, int rounds, int warm,
             std::uint64_t seed = 1) {
    std::mt19937_64 engine(seed);
    std::uniform_real_distribution<> uniform(0, 1);
    double seconds = 0, tokens = 0;
    for (int round = 0; round < rounds; ++round) {
        const DraftBudget asked = budget.choose(sequences);
        std::vector<SequenceTree> trees;
        for (std::size_t s = 0; s < sequences; ++s) {
            TokenTree::Builder tree(0);
            // Breadth by guesses: node i carries guesses below every node in turn, likeliest first.
            std::vector<std::pair<double, NodeIndex>> open{{1.0, 0}};
            while (static_cast<std::int64_t>(tree.size()) <= asked.nodes) {
                const auto best = std::max_element(open.begin(), open.end());
                const auto [p, node] = *best;
                open.erase(best);
                for (std::size_t g = 0; g < world.guess.size() && static_cast<std::int64_t>(tree.size()) <= asked.nodes;
                     ++g) {
                    const double q = std::pow(world.guess[g], 1.0 / world.overstated);
                    const NodeIndex child = tree.add(node, static_cast<TokenId>(g), static_cast<float>(std::log(q)));
                    open.emplace_back(p * world.guess[g], child);
                }
                if (world.guess.empty()) break;
            }
            trees.push_back({static_cast<SequenceId>(s), std::move(tree).build()});
        }
        trees = budget.trim(std::move(trees));
        RoundReport report{sequences, 0, 0, asked.nodes > 0 ? world.draft : 0.0, 0};
        for (const SequenceTree& t : trees) {
            std::size_t kept = 0;
            for (NodeIndex at = 0;; ++kept) {
                double u = uniform(engine);
                std::size_t g = 0;
                while (g < world.guess.size() && u >= world.guess[g]) u -= world.guess[g++];
                at = t.tree.child(at, static_cast<TokenId>(g));
                if (at == kNoNode) break;
            }
            budget.saw(t.tree, kept);
            report.drafted += static_cast<std::int64_t>(t.tree.drafted());
            report.accepted += static_cast<std::int64_t>(kept);
        }
        const double noise = 0.9 + 0.2 * uniform(engine);
        report.verify_seconds = world.pass(static_cast<std::int64_t>(sequences) + report.drafted) * noise;
        budget.learn(report);
        if (round < warm) continue;
        seconds += report.draft_seconds + report.verify_seconds;
        tokens += double(sequences) + double(report.accepted);
    }
    return tokens / seconds;
}

double flat_then_linear(std::int64_t n) { return n <= 6 ? 3e-3 : 3e-3 + 4e-4 * double(n - 6); }

}  // namespace

TEST_CASE("auto comes close to the best fixed size, whatever the machine and the drafter", "[budget]") {
    const std::vector<World> worlds{
        {flat_then_linear, 2e-4, {0.6, 0.15, 0.05}},
        {flat_then_linear, 2e-4, {0.85, 0.05}},
        {[](std::int64_t n) { return 1e-3 + 5e-4 * double(n); }, 1e-4, {0.6, 0.15, 0.05}},
        {[](std::int64_t n) { return 5e-3 + 1e-5 * double(n); }, 1e-3, {0.7, 0.1, 0.05, 0.02}},
        {flat_then_linear, 2e-4, {0.5, 0.2}, 3.0},  // claims far too much
    };
    for (std::size_t w = 0; w < worlds.size(); ++w)
        for (const std::size_t sequences : {1, 4}) {
            double best = 0;
            for (const std::int64_t nodes : {0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32})
                best = std::max(best, speed(worlds[w], TreeBudget(nodes), sequences, 2000, 100));
            const double found = speed(worlds[w], TreeBudget(kAutoNodes), sequences, 2000, 100);
            CAPTURE(w, sequences, found / best);
            CHECK(found > 0.93 * best);
        }
}

TEST_CASE("auto decodes plainly when drafting does not pay, and loses next to nothing", "[budget]") {
    const World useless{flat_then_linear, 1.5e-3, {0.05, 0.01}};
    for (const std::size_t sequences : {1, 8}) {
        const double plain = speed(useless, TreeBudget(0), sequences, 3000, 0);
        CHECK(speed(useless, TreeBudget(kAutoNodes), sequences, 3000, 0) > 0.97 * plain);  // from the first round on
        CHECK(speed(useless, TreeBudget(16), sequences, 3000, 0) < 0.8 * plain);
    }
}

TEST_CASE("auto takes up drafting again when it starts to pay", "[budget]") {
    AutoBudget learning(32);
    const auto play = [&](int rounds, double draft, double accepted_share) {
        std::mt19937_64 engine(2);
        std::int64_t drafting = 0;
        for (int i = 0; i < rounds; ++i) {
            const DraftBudget asked = learning.choose(1);
            TokenTree::Builder tree(0);
            NodeIndex at = 0;
            for (std::int64_t n = 0; n < std::min<std::int64_t>(asked.nodes, 4); ++n) at = tree.add(at, 1, -0.2F);
            std::vector<SequenceTree> trees;
            trees.push_back({1, std::move(tree).build()});
            trees = learning.trim(std::move(trees));
            std::size_t kept = 0;
            while (kept < trees[0].tree.drafted() && std::uniform_real_distribution<>(0, 1)(engine) < accepted_share)
                ++kept;
            learning.saw(trees[0].tree, kept);
            const auto n = static_cast<std::int64_t>(trees[0].tree.drafted());
            learning.learn(
                {1, n, static_cast<std::int64_t>(kept), asked.nodes > 0 ? draft : 0.0, flat_then_linear(1 + n)});
            drafting += asked.nodes > 0 ? 1 : 0;
        }
        return drafting;
    };
    CHECK(play(1000, 1.5e-3, 0.05) < 150);
    CHECK(play(2000, 1e-4, 0.9) > 800);
    CHECK(learning.gain() > 1.5);
}

TEST_CASE("a fixed budget leaves trees alone", "[budget]") {
    TreeBudget budget(5);
    CHECK(budget.choose(3).nodes == 5);
    std::vector<SequenceTree> trees;
    TokenTree::Builder tree(1);
    tree.add(0, 2, -30.0F);
    trees.push_back({1, std::move(tree).build()});
    CHECK(budget.trim(std::move(trees)).front().tree.drafted() == 1);
    CHECK_THROWS_AS(TreeBudget(-2), Error);
}

TEST_CASE("the cost curve follows what is measured and never falls", "[budget]") {
    PassCost cost;
    CHECK(cost(4) == 0.0);
    cost.learn(1, 3.0);
    CHECK(cost(1) == 3.0);
    cost.learn(8, 4.0);
    CHECK(cost(8) == 4.0);
    CHECK(cost(4) > 3.0);
    CHECK(cost(4) < 4.0);
    CHECK(cost(16) == Catch::Approx(8.0));  // never seen: in proportion
    cost.learn(16, 2.0);                    // faster than 8 rows: noise, or luck
    CHECK(cost(16) == 4.0);
    for (int i = 0; i < 100; ++i) cost.learn(8, 1e-9), cost.learn(1, 1e-9), cost.learn(16, 7.0);
    CHECK(cost(8) < 0.1);
    for (std::int64_t n = 1; n < 300; ++n) CHECK(cost(n) <= cost(n + 1));
    CHECK(PassCost::above(16) == 20);
    CHECK(PassCost::below(16) == 14);
    CHECK(PassCost::below(1) == 1);
}
