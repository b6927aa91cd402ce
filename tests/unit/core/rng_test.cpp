#include <catch2/catch_test_macros.hpp>
#include <outrider/core/detail/rng.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <set>
#include <vector>

using namespace outrider;

namespace {

/// Standard deviations between a chi-square statistic and its mean (Wilson and Hilferty).
double deviations(double statistic, double freedom) {
    const double v = 2.0 / (9.0 * freedom);
    return (std::cbrt(statistic / freedom) - (1.0 - v)) / std::sqrt(v);
}

double chi_square(const std::vector<double>& counts, const std::vector<double>& law) {
    double total = 0, statistic = 0;
    for (const double count : counts) total += count;
    for (std::size_t i = 0; i < law.size(); ++i)
        statistic += (counts[i] - total * law[i]) * (counts[i] - total * law[i]) / (total * law[i]);
    return deviations(statistic, double(law.size()) - 1);
}

}  // namespace

TEST_CASE("mix64 is the step of SplitMix64") {
    // First outputs of the published generator from seed 0; its state grows by the golden gamma.
    constexpr std::uint64_t gamma = 0x9e3779b97f4a7c15ULL;
    CHECK(mix64(0) == 0xe220a8397b1dcdafULL);
    CHECK(mix64(gamma) == 0x6e789e6aa1b965f4ULL);
    CHECK(mix64(2 * gamma) == 0x06c45d188009454fULL);
}

TEST_CASE("draws are functions of their key alone") {
    const RandomKey a(1, 2, 3), b(1, 2, 3);
    std::vector<std::uint64_t> forwards, backwards;
    for (std::uint64_t i = 0; i < 100; ++i) forwards.push_back(a.bits(i));
    for (std::uint64_t i = 100; i-- > 0;) backwards.insert(backwards.begin(), b.bits(i));
    CHECK(forwards == backwards);
    static_assert(RandomKey(1, 2, 3).bits(5) == RandomKey(1, 2, 3).bits(5));
}

TEST_CASE("every part of a key matters: no two keys of a grid share a draw") {
    std::set<std::uint64_t> draws;
    std::size_t keys = 0;
    for (std::uint64_t seed = 0; seed < 6; ++seed)
        for (std::uint64_t stream = 0; stream < 6; ++stream)
            for (std::int64_t position = 0; position < 6; ++position)
                for (std::uint64_t purpose = 0; purpose < 4; ++purpose)
                    for (std::uint64_t index = 0; index < 6; ++index, ++keys)
                        draws.insert(RandomKey(seed, stream, position, purpose).bits(index));
    CHECK(draws.size() == keys);
}

TEST_CASE("one bit of any part of a key flips half of the bits") {
    double flipped = 0;
    int pairs = 0;
    for (std::uint64_t n = 0; n < 500; ++n)
        for (int bit = 0; bit < 20; ++bit, ++pairs) {
            const std::uint64_t change = std::uint64_t{1} << bit;
            const std::uint64_t before = RandomKey(n, n + 1, static_cast<std::int64_t>(n + 2)).bits(n);
            const std::uint64_t after =
                bit % 4 == 0   ? RandomKey(n ^ change, n + 1, static_cast<std::int64_t>(n + 2)).bits(n)
                : bit % 4 == 1 ? RandomKey(n, (n + 1) ^ change, static_cast<std::int64_t>(n + 2)).bits(n)
                : bit % 4 == 2 ? RandomKey(n, n + 1, static_cast<std::int64_t>((n + 2) ^ change)).bits(n)
                               : RandomKey(n, n + 1, static_cast<std::int64_t>(n + 2)).bits(n ^ change);
            flipped += std::popcount(before ^ after);
        }
    CHECK(std::abs(flipped / pairs - 32.0) < 5 * 4.0 / std::sqrt(double(pairs)));
}

TEST_CASE("uniform draws have the moments of U(0, 1), across indices and across positions") {
    for (const bool along_positions : {false, true}) {
        double sum = 0, squares = 0;
        std::vector<double> bins(100, 0.0);
        constexpr int n = 200000;
        for (int i = 0; i < n; ++i) {
            const double u = along_positions ? RandomKey(7, 0, i).uniform(5)
                                             : RandomKey(7, 0, 5).uniform(static_cast<std::uint64_t>(i));
            REQUIRE((u > 0.0 && u < 1.0));
            sum += u, squares += u * u;
            bins[static_cast<std::size_t>(u * 100)] += 1;
        }
        CHECK(std::abs(sum / n - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
        CHECK(std::abs(squares / n - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
        CHECK(std::abs(chi_square(bins, std::vector<double>(100, 0.01))) < 4.5);
    }
}

TEST_CASE("neighbouring draws are uncorrelated in every direction of the key") {
    constexpr int n = 100000;
    for (int direction = 0; direction < 4; ++direction) {
        double product = 0;
        for (int i = 0; i < n; ++i) {
            const auto draw = [&](int shift) {
                const int s = direction == 0 ? i + shift : 3, t = direction == 1 ? i + shift : 4;
                const int p = direction == 2 ? i + shift : 5, x = direction == 3 ? i + shift : 6;
                return RandomKey(static_cast<std::uint64_t>(s), static_cast<std::uint64_t>(t), p)
                           .uniform(static_cast<std::uint64_t>(x)) -
                       0.5;
            };
            product += draw(0) * draw(1);
        }
        CHECK(std::abs(product / n) < 5.0 / 12 / std::sqrt(double(n)));
    }
}

TEST_CASE("argmax of log p + Gumbel noise draws from p; without the noise's sign it does not") {
    const std::array<double, 5> p{0.4, 0.3, 0.15, 0.1, 0.05};
    std::vector<double> counts(5, 0.0), biased(5, 0.0);
    for (int i = 0; i < 60000; ++i) {
        const RandomKey key(11, 2, i);
        std::size_t best = 0, worst = 0;
        std::array<double, 5> score{}, mirrored{};
        for (std::size_t c = 0; c < 5; ++c) {
            REQUIRE(std::isfinite(key.gumbel(c)));
            score[c] = std::log(p[c]) + key.gumbel(c);
            mirrored[c] = std::log(p[c]) - key.gumbel(c);
            if (score[c] > score[best]) best = c;
            if (mirrored[c] > mirrored[worst]) worst = c;
        }
        counts[best] += 1, biased[worst] += 1;
    }
    const std::vector<double> law(p.begin(), p.end());
    CHECK(std::abs(chi_square(counts, law)) < 4.5);
    CHECK(chi_square(biased, law) > 20);
}
