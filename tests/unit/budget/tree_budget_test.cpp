#include <catch2/catch_all.hpp>

#include <array>
#include <cmath>
#include <functional>
#include <random>

#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/budget/detail/tree_budget.hpp>

using namespace outrider;
using namespace outrider::budget;

namespace {

/// A world without a model: a pass over n rows takes `pass(n)`, a draft `draft` seconds for each sequence and
/// `catch_up` for each token it has not seen, and the next token is the drafter's i-th guess with probability
/// `guess(round)[i]`, whatever the depth.
struct World {
    std::function<double(std::int64_t)> pass;
    double draft = 0;
    std::function<std::vector<double>(int round)> guess;
    double overstated = 1.0;  ///< the drafter's log_q claims guess^(1 / overstated)
    double catch_up = 1e-5;
    std::int64_t prompt = 100;
    double noise = 0.1;
    double cold = 0;    ///< what the very first draft takes beside
    double stalls = 0;  ///< share of passes and drafts that take four times as long: other work on the machine
};

std::function<std::vector<double>(int)> always(std::vector<double> guess) {
    return [guess](int) { return guess; };
}

/// The drafter's tree: always the likeliest node next.
TokenTree best_first(const std::vector<double>& guess, double overstated, std::int64_t nodes) {
    TokenTree::Builder tree(0);
    std::vector<std::pair<double, std::pair<NodeIndex, std::size_t>>> open;  // probability, parent and guess
    const auto offer = [&](double p, NodeIndex parent, std::size_t g) {
        if (g < guess.size()) open.push_back({p * guess[g], {parent, g}});
    };
    offer(1.0, 0, 0);
    std::vector<double> path{1.0};
    while (!open.empty() && static_cast<std::int64_t>(tree.size()) <= nodes) {
        const auto best = std::max_element(open.begin(), open.end());
        const auto [p, where] = *best;
        open.erase(best);
        const double q = std::pow(guess[where.second], 1.0 / overstated);
        const NodeIndex node =
            tree.add(where.first, static_cast<TokenId>(where.second), static_cast<float>(std::log(q)));
        path.push_back(p);
        offer(path[static_cast<std::size_t>(where.first)], where.first, where.second + 1);
        offer(p, node, 0);
    }
    return std::move(tree).build();
}

struct Outcome {
    double speed = 0;  ///< tokens a second
    std::int64_t drafts = 0;
};

/// `rounds` rounds of a batch under a budget; the speed is that of all but the first `warm`.
Outcome play(const World& world, TreeBudget budget, std::size_t sequences, int rounds, std::uint64_t seed = 1,
             int warm = 0) {
    std::mt19937_64 engine(seed), other(seed + 1000);
    std::uniform_real_distribution<> uniform(0, 1);
    std::vector<std::int64_t> owed(sequences, world.prompt);
    double seconds = 0, tokens = 0;
    Outcome outcome;
    for (int round = 0; round < rounds; ++round) {
        const std::vector<double> guess = world.guess(round);
        const DraftPlan plan = budget.plan(owed);
        RoundReport report{sequences, 0, 0, 0, 0};
        std::vector<SequenceTree> trees;
        for (std::size_t s = 0; s < sequences; ++s)
            trees.push_back({static_cast<SequenceId>(s), TokenTree::root_only(0)});
        for (const std::size_t s : plan.drafting) {
            if (plan.budget.nodes > 0) trees[s].tree = best_first(guess, world.overstated, plan.budget.nodes);
            if (plan.budget.nodes > 0) report.draft_seconds += world.draft + world.catch_up * double(owed[s]);
            owed[s] = 0;
        }
        if (outcome.drafts == 0 && !plan.drafting.empty()) report.draft_seconds += world.cold;
        outcome.drafts += static_cast<std::int64_t>(plan.drafting.size());
        trees = budget.trim(std::move(trees));
        for (std::size_t s = 0; s < sequences; ++s) {
            const Acceptance accepted = accept_walk(trees[s].tree, [&](NodeIndex) {
                double u = uniform(engine);
                std::size_t g = 0;
                while (g < guess.size() && u >= guess[g]) u -= guess[g++];
                return static_cast<TokenId>(g);
            });
            budget.saw(trees[s], accepted);
            const std::size_t kept = accepted.path.size();
            owed[s] += static_cast<std::int64_t>(kept) + 1;
            report.drafted += static_cast<std::int64_t>(trees[s].tree.drafted());
            report.accepted += static_cast<std::int64_t>(kept);
        }
        const auto slowed = [&] {
            const double stall = uniform(other) < world.stalls ? 4.0 : 1.0;
            return stall * (1 - world.noise + 2 * world.noise * uniform(other));
        };
        report.verify_seconds = world.pass(static_cast<std::int64_t>(sequences) + report.drafted) * slowed();
        report.draft_seconds *= slowed();
        budget.learn(report);
        if (round < warm) continue;
        seconds += report.draft_seconds + report.verify_seconds;
        tokens += double(sequences) + double(report.accepted);
    }
    outcome.speed = tokens / seconds;
    return outcome;
}

TreeBudget measured(const World& world) {
    TreeBudget budget(kAutoNodes);
    std::vector<PassTime> times;
    for (const std::int64_t rows : {1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128})
        times.push_back({rows, world.pass(rows)});
    budget.measured(times);
    return budget;
}

double flat_then_linear(std::int64_t n) { return n <= 6 ? 3e-3 : 3e-3 + 4e-4 * double(n - 6); }
double small_cpu(std::int64_t n) { return 2.2e-3 + 7e-4 * double(n) + (n > 8 ? 2e-4 * double(n - 8) : 0.0); }
double nearly_linear(std::int64_t n) { return 1e-3 + 5e-4 * double(n); }
double nearly_flat(std::int64_t n) { return 5e-3 + 1e-5 * double(n); }

const std::vector<std::pair<const char*, std::function<double(std::int64_t)>>> kMachines{
    {"flat, then linear", flat_then_linear},
    {"small CPU", small_cpu},
    {"nearly linear", nearly_linear},
    {"nearly flat", nearly_flat}};

struct Named {
    const char* name;
    World world;  ///< `pass` is put in
};

const std::vector<Named> kDrafters{
    {"perfect", {{}, 2e-4, always({0.999})}},
    {"good", {{}, 2e-4, always({0.6, 0.15, 0.05})}},
    {"free and mostly useless", {{}, 5e-6, always({0.1, 0.02})}},
    {"claims far too much", {{}, 2e-4, always({0.5, 0.2}), 3.0}},
    {"useless", {{}, 6e-4, always({0.02, 0.01})}},
    {"useless and claims all", {{}, 6e-4, always({0.02, 0.01}), 20.0}},
    {"useless and costly", {{}, 5e-3, always({0.05, 0.01}), 4.0}},
    {"costly", {{}, 3e-3, always({0.6, 0.15, 0.05})}},
    {"useless, then good",
     {{}, 4e-4, [](int round) { return round < 1500 ? std::vector{0.02} : std::vector{0.8, 0.1}; }}},
    {"good, then useless",
     {{}, 4e-4, [](int round) { return round < 1500 ? std::vector{0.8, 0.1} : std::vector{0.02}; }, 2.0}},
};

}  // namespace

TEST_CASE("auto never loses to plain decoding, and comes close to the best fixed size", "[budget]") {
    for (const auto& [machine, pass] : kMachines)
        for (const Named& drafter : kDrafters)
            for (const std::size_t sequences : {1, 2, 8, 64})
                for (const bool known : {true, false}) {
                    World world = drafter.world;
                    world.pass = pass;
                    const bool changes = world.guess(0) != world.guess(2999);
                    if (changes && sequences == 64) continue;
                    const int rounds = sequences == 64 ? 600 : 3000;
                    const double plain = play(world, TreeBudget(0), sequences, rounds).speed;
                    double best = plain;
                    for (const std::int64_t nodes : {1, 2, 3, 4, 6, 8, 12, 16, 24, 32})
                        if (sequences < 64 || nodes < 5)
                            best = std::max(best, play(world, TreeBudget(nodes), sequences, rounds / 3).speed);
                    if (changes) {  // the best fixed size over the whole
                        best = plain;
                        for (const std::int64_t nodes : {1, 3, 6, 12})
                            best = std::max(best, play(world, TreeBudget(nodes), sequences, rounds).speed);
                    }
                    const Outcome found =
                        play(world, known ? measured(world) : TreeBudget(kAutoNodes), sequences, rounds);
                    CAPTURE(machine, drafter.name, sequences, known, found.drafts, best / plain);
                    INFO("over plain " << found.speed / plain << ", over the best " << found.speed / best);
                    CHECK(found.speed >= 0.97 * plain);
                    CHECK(found.speed >= (known ? 0.9 : 0.85) * best);
                }
}

TEST_CASE("auto comes close to the best fixed size once it has settled", "[budget]") {
    const std::vector<World> worlds{
        {flat_then_linear, 2e-4, always({0.6, 0.15, 0.05})}, {flat_then_linear, 2e-4, always({0.85, 0.05})},
        {nearly_linear, 1e-4, always({0.6, 0.15, 0.05})},    {nearly_flat, 1e-3, always({0.7, 0.1, 0.05, 0.02})},
        {flat_then_linear, 2e-4, always({0.5, 0.2}), 3.0},  // claims far too much
    };
    for (std::size_t w = 0; w < worlds.size(); ++w)
        for (const std::size_t sequences : {1, 4})
            for (const bool known : {true, false}) {
                double best = 0;
                for (const std::int64_t nodes : {0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32})
                    best = std::max(best, play(worlds[w], TreeBudget(nodes), sequences, 2000, 1, 100).speed);
                const double found =
                    play(worlds[w], known ? measured(worlds[w]) : TreeBudget(kAutoNodes), sequences, 2000, 1, 100)
                        .speed;
                CAPTURE(w, sequences, known, found / best);
                CHECK(found > 0.93 * best);
            }
}

TEST_CASE("a cold first draft does not end drafting for good", "[budget]") {
    for (const double passes : {3.0, 10.0})
        for (const std::size_t sequences : {1, 4}) {
            World world{flat_then_linear, 2e-4, always({0.7, 0.15, 0.05})};
            const double warm = play(world, measured(world), sequences, 3000, 1, 2000).speed;
            const double plain = play(world, TreeBudget(0), sequences, 3000, 1, 2000).speed;
            world.cold = passes * world.pass(static_cast<std::int64_t>(sequences));
            const double found = play(world, measured(world), sequences, 3000, 1, 2000).speed;
            CAPTURE(passes, sequences, warm / plain, found / plain);
            REQUIRE(warm > 1.05 * plain);  // else there is nothing to lose
            CHECK(found > 0.97 * warm);
        }
}

TEST_CASE("a text whose beginning is hard to draft does not end drafting for good", "[budget]") {
    // What one row and more cost with VNNI and AVX2, what a CTC draft does, and texts of 60 rounds, each as hard as it
    // is.
    const auto between = [](std::vector<std::pair<double, double>> points) {
        return [points](std::int64_t n) {
            std::size_t i = 1;
            while (i + 1 < points.size() && double(n) > points[i].first) ++i;
            const auto [x0, y0] = points[i - 1];
            const auto [x1, y1] = points[i];
            return y0 + (y1 - y0) * (double(n) - x0) / (x1 - x0);
        };
    };
    const std::vector<std::function<double(std::int64_t)>> machines{
        between({{1, 2.8e-3}, {2, 2.8e-3}, {4, 2.95e-3}, {6, 3.4e-3}, {8, 4.2e-3}, {16, 7.8e-3}}),
        between({{1, 3.3e-3}, {2, 3.3e-3}, {4, 3.9e-3}, {6, 5.4e-3}, {8, 7.4e-3}, {16, 14e-3}})};
    const auto texts = [](int round) {
        constexpr std::array<double, 7> kEase{0.15, 0.75, 0.5, 0.65, 0.3, 0.8, 0.6};
        const double ease = kEase[static_cast<std::size_t>(round / 60) % kEase.size()];
        const double lucky = round * 7919 % 10 < 5 ? 0.15 : -0.15;  // from round to round
        return std::vector{ease + lucky, 0.5 * (1 - ease - lucky), 0.1 * (1 - ease - lucky)};
    };
    for (std::size_t m = 0; m < machines.size(); ++m) {
        World world{machines[m], 7e-4, texts};
        world.catch_up = 2e-5, world.noise = 0.25, world.stalls = 0.01, world.cold = 2e-3;
        double found = 0, best = 0, worst = 1e9, plain = 0;
        for (std::uint64_t seed = 1; seed <= 12; ++seed) {
            const double speed = play(world, measured(world), 1, 2100, seed).speed;
            found += speed, worst = std::min(worst, speed);
            double one = 0;
            for (const std::int64_t nodes : {2, 3, 4, 5, 6})
                one = std::max(one, play(world, TreeBudget(nodes), 1, 2100, seed).speed);
            best += one, plain += play(world, TreeBudget(0), 1, 2100, seed).speed;
        }
        CAPTURE(m, best / plain, found / plain, 12 * worst / plain);
        REQUIRE(best > 1.1 * plain);
        CHECK(found > 0.97 * best);
        CHECK(12 * worst > 0.9 * best);
    }
}

TEST_CASE("auto keeps its head on a machine that stalls", "[budget]") {
    for (const Named& drafter : kDrafters)
        for (const std::size_t sequences : {1, 8}) {
            World world = drafter.world;
            world.pass = small_cpu, world.noise = 0.3, world.stalls = 0.06;
            double plain = 0, best = 0, found = 0;
            for (std::uint64_t seed = 1; seed <= 4; ++seed) {
                plain += play(world, TreeBudget(0), sequences, 3000, seed).speed;
                best += play(world, TreeBudget(3), sequences, 3000, seed).speed;
                found += play(world, measured(world), sequences, 3000, seed).speed;
            }
            CAPTURE(drafter.name, sequences, best / plain, found / plain);
            CHECK(found > 0.96 * plain);
            CHECK(found > 0.88 * best);
        }
}

TEST_CASE("auto costs next to nothing in a short run", "[budget]") {
    for (const auto& [machine, pass] : kMachines)
        for (const Named& drafter : kDrafters)
            for (const std::size_t sequences : {1, 8, 64})
                for (const bool known : {true, false}) {
                    World world = drafter.world;
                    world.pass = pass;
                    double share = 0;
                    for (std::uint64_t seed = 1; seed <= 10; ++seed)
                        share +=
                            0.1 *
                            play(world, known ? measured(world) : TreeBudget(kAutoNodes), sequences, 100, seed).speed /
                            play(world, TreeBudget(0), sequences, 100, seed).speed;
                    // A trial ends when luck no longer explains what it lost: later where a drafter claims too much,
                    // and after three calls of one that costs as much as a pass.
                    const double plain = world.pass(static_cast<std::int64_t>(sequences));
                    const double call = world.draft / plain, prompt = world.catch_up * double(world.prompt) / plain;
                    const double lost =
                        std::max(world.overstated > 1 ? 4.5 : 3.0, call > 0.5 ? 3 * call + prompt + 2 : 0);
                    CAPTURE(machine, drafter.name, sequences, known, call, lost);
                    CHECK(share >= 1 - lost / 100);
                }
}

TEST_CASE("no drafter is run where not even a perfect one could gain", "[budget]") {
    World world = kDrafters[0].world;
    world.pass = [](std::int64_t n) { return 1e-3 * double(n); };
    CHECK(play(world, measured(world), 8, 500).drafts == 0);
}

TEST_CASE("a table that says that nothing could gain does not end drafting for good", "[budget]") {
    for (const auto& [pass, share] : {std::pair{&flat_then_linear, 0.95}, std::pair{&nearly_flat, 0.65}}) {
        const World world{pass, 2e-4, always({0.7, 0.15, 0.05})};
        World wrong = world;
        wrong.pass = [&](std::int64_t n) { return double(n) * world.pass(1); };
        const double warm = play(world, measured(world), 1, 12000, 1, 8000).speed;
        const double found = play(world, measured(wrong), 1, 12000, 1, 8000).speed;
        CAPTURE(share, found / warm);
        REQUIRE(share * warm > 1.1 * play(world, TreeBudget(0), 1, 2000).speed);
        CHECK(found > share * warm);
    }
}

TEST_CASE("auto takes up drafting again when it starts to pay", "[budget]") {
    World world{small_cpu, 2e-4, [](int round) { return round < 2000 ? std::vector{0.02} : std::vector{0.85}; }};
    const std::int64_t before = play(world, measured(world), 1, 2000).drafts;
    CHECK(before > 5);  // probes
    CHECK(before < 100);
    CHECK(play(world, measured(world), 1, 4000).drafts > before + 1000);
}

TEST_CASE("a fixed budget leaves trees alone and asks for every sequence", "[budget]") {
    TreeBudget budget(5);
    const std::vector<std::int64_t> owed{4, 0, 9};
    const DraftPlan plan = budget.plan(owed);
    CHECK(plan.budget.nodes == 5);
    CHECK(plan.drafting == std::vector<std::size_t>{0, 1, 2});
    std::vector<SequenceTree> trees;
    TokenTree::Builder tree(1);
    tree.add(0, 2, -30.0F);
    trees.push_back({1, std::move(tree).build()});
    CHECK(budget.trim(std::move(trees)).front().tree.drafted() == 1);
    CHECK_THROWS_AS(TreeBudget(-2), Error);
}

TEST_CASE("auto trims trees that were chosen, and leaves those that were drawn", "[budget]") {
    struct Law final : DraftLaw {
        void conditional(std::span<const TokenId>, std::span<double> q) const override { q[1] = 1.0; }
    };
    for (const bool drawn : {false, true}) {
        TreeBudget budget(kAutoNodes);
        budget.measured(std::vector<PassTime>{{1, 1.0}, {2, 1.1}, {8, 8.0}, {64, 64.0}});
        const DraftPlan plan = budget.plan(std::vector<std::int64_t>{5});
        REQUIRE(plan.drafting.size() == 1);
        TokenTree::Builder builder(0);
        const std::vector<double> hopeless(20, 1e-6);
        for (std::size_t i = 0; i < hopeless.size(); ++i)
            (void)builder.add(0, static_cast<TokenId>(i + 1), static_cast<float>(std::log(i == 0 ? 0.9 : hopeless[i])));
        std::vector<SequenceTree> trees;
        trees.push_back({1, std::move(builder).build()});
        const std::vector<DraftSamples::Chain> chains{{{1}, true}};
        trees[0].samples = std::make_shared<const DraftSamples>(
            drawn ? DraftSamples::from_chains(std::make_shared<Law>(), chains) : DraftSamples::chosen(trees[0].tree));
        CHECK(budget.trim(trees)[0].tree.drafted() == (drawn ? 20 : 1));
    }
}
