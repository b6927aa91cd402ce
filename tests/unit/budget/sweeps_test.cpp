// Tables of pass times from sweeps: a slow minute, a moment of other work, a machine that is busy all the time.
#include <catch2/catch_all.hpp>

#include <cmath>
#include <random>

#include <outrider/budget/detail/sweeps.hpp>

using namespace outrider;
using namespace outrider::budget;

namespace {

const std::vector<std::int64_t> kRows{1, 2, 3, 4, 6, 8, 12, 16};
double truth(std::int64_t rows) { return 2e-3 + 3e-4 * double(rows); }

struct Machine {
    std::mt19937_64 engine{11};
    std::uniform_real_distribution<> uniform{0, 1};
    double level = 1, noise = 0.04, interrupted = 0;  ///< share of passes that other work interrupts

    Sweeps sweep(int times) {
        Sweeps sweeps(kRows);
        for (int i = 0; i < times; ++i) {
            std::vector<double> seconds;
            for (const std::int64_t rows : kRows)
                seconds.push_back(level * truth(rows) * (1 + noise * (2 * uniform(engine) - 1)) +
                                  (uniform(engine) < interrupted ? 4e-3 : 0.0));
            sweeps.add(seconds);
        }
        return sweeps;
    }
};

void check_ratios(const std::vector<PassTime>& table, double within) {
    REQUIRE(table.size() == kRows.size());
    for (const PassTime& t : table) {
        CAPTURE(t.rows, t.seconds);
        CHECK(t.seconds / table[0].seconds == Catch::Approx(truth(t.rows) / truth(1)).epsilon(within));
    }
}

}  // namespace

TEST_CASE("a quiet machine's table is what passes take", "[budget]") {
    const Sweeps sweeps = Machine{}.sweep(9);
    check_ratios(sweeps.table(), 0.05);
    CHECK(sweeps.table()[0].seconds == Catch::Approx(truth(1)).epsilon(0.05));
    CHECK(sweeps.steady());
}

TEST_CASE("a machine that changes its speed between sweeps changes no ratio", "[budget]") {
    Sweeps sweeps(kRows);
    Machine machine;
    for (int i = 0; i < 9; ++i) {
        std::vector<double> seconds;
        machine.level = i < 4 ? 1.0 : 1.8;
        for (const std::int64_t rows : kRows) seconds.push_back(machine.level * truth(rows));
        sweeps.add(seconds);
    }
    check_ratios(sweeps.table(), 0.01);
    CHECK_FALSE(sweeps.steady());  // not worth remembering
}

TEST_CASE("sweeps that other work interrupted are thrown away", "[budget]") {
    Machine machine;
    machine.interrupted = 0.04;
    check_ratios(machine.sweep(15).table(), 0.05);
    machine.interrupted = 0.5;  // none is left: medians are the best there is, and nothing to remember
    const Sweeps busy = machine.sweep(15);
    CHECK(busy.table().size() == kRows.size());
    CHECK_FALSE(busy.steady());
    for (std::size_t i = 1; i < kRows.size(); ++i) CHECK(busy.table()[i].seconds >= busy.table()[i - 1].seconds);
}

TEST_CASE("a remembered table is borne out or contradicted by a short sweep", "[budget]") {
    Machine machine;
    machine.level = 1.7;  // slower as a whole: that is no matter of the table
    const Sweeps check = machine.sweep(5);
    std::vector<PassTime> right, wrong;
    for (const std::int64_t rows : {1, 2, 4, 8, 16, 32}) {
        right.push_back({rows, truth(rows)});
        wrong.push_back({rows, rows > 1 ? 1.4 * truth(rows) : truth(rows)});
    }
    CHECK(check.agrees(right));
    CHECK_FALSE(check.agrees(wrong));
    CHECK_FALSE(check.agrees({}));
}

TEST_CASE("times that are none are no sweep", "[budget]") {
    Sweeps sweeps({1, 2});
    CHECK(sweeps.table().empty());
    CHECK_FALSE(sweeps.steady());
    CHECK_FALSE(sweeps.agrees(std::vector<PassTime>{{1, 1.0}}));
    sweeps.add(std::vector<double>{1.0, std::nan("")});
    sweeps.add(std::vector<double>{1.0, 0.0});
    CHECK(sweeps.size() == 0);
    sweeps.add(std::vector<double>{1.0, 1.5});
    CHECK(sweeps.table().size() == 2);
    CHECK_FALSE(sweeps.steady());
}

namespace {

/// Sweeps over kRows by a clock of its own, and what they took.
struct Timed {
    double now = 0, level = 1, noise = 0;
    std::vector<std::int64_t> made;
    std::mt19937_64 engine{5};

    Sweeps run(double seconds, double passes) {
        const auto pass = [&](std::int64_t rows) {
            const double taken = level * truth(rows) * (1 + noise * std::uniform_real_distribution<>(0, 1)(engine));
            made.push_back(rows), now += taken;
            return taken;
        };
        return run_sweeps(kRows, {.until = now + seconds, .passes = passes}, [&] { return now; }, pass);
    }
    [[nodiscard]] bool has(std::int64_t rows) const { return std::ranges::count(made, rows) > 0; }
};

}  // namespace

TEST_CASE("sweeps end where enough of them agree, and with the time where they do not", "[budget]") {
    Timed quiet;
    const Sweeps few = quiet.run(10, 20);
    CHECK(few.size() == 6);
    check_ratios(few.table(), 1e-9);
    CHECK(quiet.made.size() == 1 + 7 * kRows.size());  // the first pass twice, then each size once before the sweeps
    CHECK(std::vector(quiet.made.end() - 16, quiet.made.end() - 8) == kRows);
    CHECK(quiet.made.back() == 1);  // every other sweep goes downwards

    Timed busy;
    busy.noise = 3;
    CHECK(busy.run(10, 20).size() == 15);
    Timed late;
    late.noise = 3;
    const double whole = 15 * 8 * truth(8);
    CHECK(late.run(whole / 2, 20).size() < 15);
    CHECK(late.now < whole);
}

TEST_CASE("slow passes are swept over few sizes, wide apart, within so many of the smallest", "[budget]") {
    Timed slow;
    slow.level = 100;  // a pass of one row takes longer than the time given
    const Sweeps sweeps = slow.run(0.2, 20);
    CHECK(sweeps.size() == 3);
    CHECK(slow.now <= (20 + 2) * slow.level * truth(1));
    const std::vector<PassTime> table = sweeps.table();
    REQUIRE(table.size() == 3);
    CHECK((table[0].rows == 1 && table[1].rows == 2 && table[2].rows == 4));
    CHECK(table[2].seconds / table[0].seconds == Catch::Approx(truth(4) / truth(1)));

    Timed between;
    between.level = 10;
    CHECK(between.run(1.2, 0).table().size() == 5);
    CHECK((between.has(16) && !between.has(3) && !between.has(12)));
}

TEST_CASE("no time, no sweep", "[budget]") {
    Timed machine;
    CHECK(machine.run(0, 0).table().empty());
    CHECK(machine.made.empty());
    CHECK(run_sweeps({}, {.until = 1}, [] { return 0.0; }, [](std::int64_t) { return 1.0; }).table().empty());
}
