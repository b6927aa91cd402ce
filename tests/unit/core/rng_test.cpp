#include <catch2/catch_test_macros.hpp>
#include <outrider/core/options.hpp>
#include <outrider/core/rng.hpp>
#include <outrider/core/stats.hpp>

#include <cmath>

using namespace outrider;

TEST_CASE("draws are functions of their key alone") {
    const RandomKey a(1, 2, 3), b(1, 2, 3);
    for (std::uint64_t i = 0; i < 100; ++i) CHECK(a.bits(i) == b.bits(100 - (100 - i)));
    CHECK(RandomKey(1, 2, 4).bits(0) != a.bits(0));
    CHECK(RandomKey(1, 3, 3).bits(0) != a.bits(0));
    CHECK(RandomKey(2, 2, 3).bits(0) != a.bits(0));
    CHECK(RandomKey(1, 2, 3, 1).bits(0) != a.bits(0));
}

TEST_CASE("uniform draws have the moments of U(0, 1), across indices and across positions") {
    for (const bool along_positions : {false, true}) {
        double sum = 0, squares = 0;
        constexpr int n = 200000;
        for (int i = 0; i < n; ++i) {
            const double u = along_positions ? RandomKey(7, 0, i).uniform(5)
                                             : RandomKey(7, 0, 5).uniform(static_cast<std::uint64_t>(i));
            REQUIRE((u > 0.0 && u < 1.0));
            sum += u, squares += u * u;
        }
        CHECK(std::abs(sum / n - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
        CHECK(std::abs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
    }
}
