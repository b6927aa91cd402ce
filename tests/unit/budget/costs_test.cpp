// What passes and drafts cost: curves that never fall, the level apart from the shape, a draft's drag apart from both.
#include <catch2/catch_all.hpp>

#include <cmath>
#include <random>

#include <outrider/budget/detail/draft_cost.hpp>
#include <outrider/budget/detail/pass_cost.hpp>

using namespace outrider;
using namespace outrider::budget;

TEST_CASE("falling neighbours share their weighted mean", "[budget]") {
    std::vector<double> values{1.0, 4.0, 2.0, 3.0, 9.0, 8.0};
    never_falling(values, std::vector<double>{1, 1, 3, 1, 1, 1});
    CHECK(values == std::vector<double>{1.0, 2.5, 2.5, 3.0, 8.5, 8.5});
    std::vector<double> none;
    never_falling(none, {});
    CHECK(none.empty());
}

TEST_CASE("measured points are read between and beyond", "[budget]") {
    const std::vector<PassTime> points{{1, 2.0}, {4, 2.5}, {8, 4.5}};
    CHECK(read(points, 1) == 2.0);
    CHECK(read(points, 2) == Catch::Approx(2.0 + 0.5 / 3));
    CHECK(read(points, 10) == Catch::Approx(5.5));
    CHECK(read(std::vector<PassTime>{{1, 1.0}, {8, 1.0}}, 64) > 2.0);  // nothing tells that further rows are free
    CHECK(read(std::vector<PassTime>{{2, 1.0}}, 4) == 2.0);
    CHECK(Curve::above(16) == 20);
    CHECK(Curve::below(16) == 14);
    CHECK(Curve::below(1) == 1);
    CHECK(Curve::above(5000) == 5000);
    CHECK(Curve::kRows[Curve::nearest(9)] == 10);
    CHECK(Curve::kRows[Curve::nearest(33)] == 32);
}

TEST_CASE("the cost curve follows what is measured and never falls", "[budget]") {
    PassCost cost;
    CHECK(cost(4) == 0.0);
    cost.learn(1, 3.0);
    CHECK(cost(1) == Catch::Approx(3.0));
    CHECK(cost(10) == Catch::Approx(6.0));  // never seen: as if a pass cost eight rows more
    for (int i = 0; i < 20; ++i) cost.learn(8, 4.0), cost.learn(1, 3.0);
    CHECK(cost(8) == Catch::Approx(4.0).epsilon(0.05));
    CHECK(cost(4) > 2.9);
    CHECK(cost(4) < 4.1);
    for (int i = 0; i < 20; ++i) cost.learn(16, 2.0);  // faster than 8 rows: noise, or luck
    CHECK(cost(16) >= cost(8));
    for (int i = 0; i < 200; ++i) cost.learn(8, 1e-9), cost.learn(1, 1e-9), cost.learn(16, 1e-9);
    CHECK(cost(8) < 0.1);
    for (std::int64_t n = 1; n < 1300; ++n) CHECK(cost(n) <= cost(n + 1));
}

TEST_CASE("the cost curve starts from what was measured beforehand, and keeps its shape", "[budget]") {
    const std::vector<PassTime> times{{1, 2.0}, {4, 2.5}, {8, 4.5}, {16, 8.0}};
    PassCost cost(times);
    for (const PassTime& t : times) CHECK(cost(t.rows) == Catch::Approx(t.seconds));
    CHECK(cost(32) == Catch::Approx(15.0));            // the last slope
    for (int i = 0; i < 200; ++i) cost.learn(4, 5.0);  // a machine that is half as fast by now
    CHECK(cost(4) == Catch::Approx(5.0).epsilon(0.02));
    CHECK(cost(16) == Catch::Approx(16.0).epsilon(0.05));
    cost.learn(4, 0.0);
    cost.learn(4, std::nan(""));  // no times at all: ignored
    CHECK(cost(4) == Catch::Approx(5.0).epsilon(0.02));
}

TEST_CASE("one pass of a new size tells what that size costs, and nothing of the others", "[budget]") {
    PassCost cost;
    for (int i = 0; i < 20; ++i) cost.learn(1, 5.0), cost.learn(8, 5.2);
    cost.learn(32, 6.0);
    CHECK(cost(32) == Catch::Approx(6.0).epsilon(0.02));
    CHECK(cost(8) == Catch::Approx(5.2).epsilon(0.02));
    CHECK(cost(16) < 6.01);
    CHECK(cost.largest_seen() == 8);                 // a single pass is not yet believed
    for (int i = 0; i < 3; ++i) cost.learn(4, 9.0);  // a slow moment lifts no larger size
    CHECK(cost(32) < 7.5);
}

TEST_CASE("a slow minute is a matter of level, a wrong table one of shape", "[budget]") {
    const std::vector<PassTime> times{{1, 2.0}, {2, 2.2}, {4, 2.6}, {8, 4.0}};
    std::mt19937 engine(3);
    std::uniform_real_distribution<> noise(0.9, 1.1);
    PassCost slow(times);
    for (int i = 0; i < 40; ++i) slow.learn(2, 2 * 2.2 * noise(engine));
    CHECK(slow(8) == Catch::Approx(8.0).epsilon(0.15));  // never seen, but the machine is half as fast
    const std::vector<PassTime> wrong{{1, 2.0}, {2, 3.4}, {4, 3.4}, {8, 8.0}};
    PassCost shape(wrong);
    for (int i = 0; i < 60; ++i)
        for (const PassTime& t : times) shape.learn(t.rows, t.seconds * noise(engine));
    for (const PassTime& t : times) CHECK(shape(t.rows) == Catch::Approx(t.seconds).epsilon(0.08));
}

TEST_CASE("what a draft adds to every pass after it is booked to the draft", "[budget]") {
    const std::vector<PassTime> times{{1, 2.5}, {2, 2.7}, {4, 3.3}, {8, 4.8}};
    std::mt19937 engine(5);
    std::uniform_real_distribution<> noise(0.95, 1.05);
    PassCost cost(times);
    const double draft = 1.2, drag = 0.6;  // 0.72 longer after a draft, at every size
    for (int i = 0; i < 400; ++i) {
        const PassTime& t = times[i % 3 + 1];
        if (i % 12 == 0) cost.learn(1, times[0].seconds * noise(engine));
        cost.learn(t.rows, (t.seconds + drag * draft) * noise(engine), draft);
    }
    CHECK(cost.drag() == Catch::Approx(drag).margin(0.2));
    CHECK(cost(1) == Catch::Approx(2.5).epsilon(0.05));
    for (const PassTime& t : times)
        CHECK(cost(t.rows) + cost.drag() * draft - t.seconds ==
              Catch::Approx(t.rows == 1 ? cost.drag() * draft : drag * draft).margin(0.15));
    PassCost quiet(times);
    for (int i = 0; i < 200; ++i) quiet.learn(1, 2.5 * noise(engine)), quiet.learn(4, 3.3 * noise(engine), draft);
    CHECK(quiet.drag() < 0.1);
}

TEST_CASE("what a draft costs is told by steady calls", "[budget]") {
    DraftCost cost;
    CHECK_FALSE(cost.known());
    cost.learn(1, 43, 13e-3);  // the very first call: cold, and a prompt to read
    CHECK(cost.steady(1) < 4e-3);
    CHECK_FALSE(cost.known());
    for (int i = 0; i < 20; ++i) cost.learn(1, 2, 1e-3);
    CHECK(cost.known());
    CHECK(cost.steady(1) == Catch::Approx(1e-3));
    CHECK(cost.steady(4) == Catch::Approx(4e-3));
    cost.learn(1, 1, 1.0);  // the machine did something else
    CHECK(cost.steady(1) < 1.1e-3);
    for (int i = 0; i < 40; ++i) cost.learn(1, 108, 11e-3);
    CHECK(cost.steady(1) < 1.1e-3);
    CHECK(cost.catch_up(1, 108) == Catch::Approx(10e-3).epsilon(0.1));
    CHECK(cost.catch_up(1, 3) == 0.0);
    CHECK(cost.usual_catch_up() > 1e-3);
    DraftCost two;  // as those of a merged drafter are
    for (int i = 0; i < 400; ++i) two.learn(1, 1, i % 5 == 0 ? 1e-3 : 2e-5);
    CHECK(two.steady(1) > 1e-4);
    CHECK(two.steady(1) < 4e-4);
    CHECK(two.most(1) > 4e-4);
}
