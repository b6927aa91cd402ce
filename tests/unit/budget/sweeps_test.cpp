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
