#include <catch2/catch_all.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <outrider/accept/detail/gumbel.hpp>
#include <outrider/accept/detail/warp.hpp>
#include <outrider/core/detail/vector_level.hpp>

using namespace outrider;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(std::size_t n, std::uint64_t seed, float spread) {
    std::mt19937_64 engine(seed);
    std::normal_distribution<float> normal(0.0F, spread);
    std::vector<float> logits(n);
    for (float& x : logits) x = normal(engine);
    return logits;
}

/// Every token's score, one after another: the definition.
TokenId plain_gumbel(std::span<const float> logits, double temperature, const RandomKey& key) {
    TokenId best = 0;
    double score = -kInf;
    for (std::size_t t = 0; t < logits.size(); ++t) {
        const double s = double(logits[t]) / temperature + key.gumbel(t);
        if (s > score) score = s, best = static_cast<TokenId>(t);
    }
    return best;
}

/// The documented order, in double and with a full sort.
std::vector<TokenId> plain_truncation(std::span<const float> logits, const SamplingOptions& o, double& border) {
    std::vector<TokenId> ids(logits.size());
    std::iota(ids.begin(), ids.end(), 0);
    std::stable_sort(ids.begin(), ids.end(), [&](TokenId a, TokenId b) {
        return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
    });
    const double top = logits[static_cast<std::size_t>(ids[0])];
    const auto weight = [&](TokenId t) {
        return std::exp((logits[static_cast<std::size_t>(t)] - top) / o.temperature);
    };
    std::erase_if(ids, [&](TokenId t) { return logits[static_cast<std::size_t>(t)] == -kInf; });
    if (o.top_k > 0 && ids.size() > static_cast<std::size_t>(o.top_k)) ids.resize(static_cast<std::size_t>(o.top_k));
    border = 1.0;
    if (o.top_p < 1.0) {
        double total = 0, sum = 0;
        for (const TokenId t : ids) total += weight(t);
        std::size_t n = 0;
        while (n < ids.size() && sum < o.top_p * total) {
            sum += weight(ids[n++]);
            border = std::min(border, std::abs(sum / total - o.top_p));
        }
        ids.resize(n);
    }
    if (o.min_p > 0.0) {
        for (const TokenId t : ids) border = std::min(border, std::abs(weight(t) / o.min_p - 1.0));
        std::erase_if(ids, [&](TokenId t) { return weight(t) < o.min_p; });
    }
    return ids;
}

}  // namespace

TEST_CASE("row_maximum finds the lowest index of the largest entry, and NaN anywhere", "[warp]") {
    for (const std::size_t n : {1, 2, 15, 16, 17, 1023, 1024, 1025, 5000}) {
        std::vector<float> logits = random_logits(n, n, 3.0F);
        const auto expected = std::max_element(logits.begin(), logits.end());
        CHECK(row_maximum(logits).token == expected - logits.begin());
        CHECK(row_maximum(logits).value == *expected);
        CHECK_FALSE(row_maximum(logits).has_nan);
        std::fill(logits.begin(), logits.end(), -1.0F);
        CHECK(row_maximum(logits).token == 0);
        logits[n - 1] = 2.0F;
        if (n > 3) logits[n - 2] = 2.0F;
        CHECK(row_maximum(logits).token == static_cast<TokenId>(n > 3 ? n - 2 : n - 1));
        for (const std::size_t where : {std::size_t{0}, n / 2, n - 1}) {
            std::vector<float> broken = logits;
            broken[where] = std::nanf("");
            CHECK(row_maximum(broken).has_nan);
        }
        std::fill(logits.begin(), logits.end(), -kInf);
        CHECK(row_maximum(logits).value == -kInf);
    }
}

TEST_CASE("gumbel_pick is the argmax over all tokens, whatever it skips", "[gumbel]") {
    int compared = 0;
    for (const float spread : {0.01F, 1.0F, 4.0F, 12.0F})
        for (const double temperature : {0.05, 0.7, 1.0, 3.0})
            for (std::uint64_t trial = 0; trial < 40; ++trial) {
                std::vector<float> logits = random_logits(trial % 2 ? 3001 : 64, trial * 31 + 5, spread);
                if (trial % 3 == 0)
                    for (std::size_t i = 0; i < logits.size(); i += 2) logits[i] = -kInf;
                if (trial % 5 == 0) std::fill(logits.begin(), logits.end(), 0.5F);
                const RandomKey key(trial, 7, static_cast<std::int64_t>(trial) * 13);
                const float top = *std::max_element(logits.begin(), logits.end());
                REQUIRE(gumbel_pick(logits, top, temperature, key) == plain_gumbel(logits, temperature, key));
                ++compared;
            }
    CHECK(compared == 640);
}

TEST_CASE("gumbel_pick draws from the softmax", "[gumbel]") {
    const std::vector<float> logits{0.0F, 1.0F, 2.0F, -1.0F};
    std::vector<double> count(4, 0.0);
    constexpr int kDraws = 40000;
    for (int i = 0; i < kDraws; ++i)
        count[static_cast<std::size_t>(gumbel_pick(logits, 2.0F, 0.8, RandomKey(3, 0, i)))] += 1;
    const auto chi2_of = [&](double temperature) {
        double chi2 = 0, total = 0;
        for (const float x : logits) total += std::exp(x / temperature);
        for (std::size_t t = 0; t < 4; ++t) {
            const double expected = kDraws * std::exp(logits[t] / temperature) / total;
            chi2 += std::pow(count[t] - expected, 2) / expected;
        }
        return chi2;
    };
    CHECK(chi2_of(0.8) < 16.3);   // 3 degrees of freedom, p = 0.001
    CHECK(chi2_of(0.85) > 16.3);  // the negative control: another softmax is told apart
}

TEST_CASE("truncation keeps the tokens that the definition keeps, in order", "[warp]") {
    Truncation truncation;
    int compared = 0, at_border = 0;
    for (std::uint64_t trial = 0; trial < 600; ++trial) {
        std::vector<float> logits = random_logits(trial % 3 == 0 ? 5000 : 37, trial, trial % 2 ? 5.0F : 0.5F);
        if (trial % 7 == 0)
            for (float& x : logits) x = std::round(x);  // many ties
        if (trial % 11 == 0)
            for (std::size_t i = 3; i < logits.size(); ++i) logits[i] = -kInf;
        SamplingOptions o;
        o.temperature = std::vector<double>{0.3, 1.0, 2.0}[trial % 3];
        if (trial % 4 == 0) o.top_k = static_cast<std::int64_t>(1 + trial % 50);
        if (trial % 2 == 0) o.top_p = std::vector<double>{0.05, 0.5, 0.9, 0.999}[trial / 2 % 4];
        if (trial % 5 < 2) o.min_p = std::vector<double>{0.01, 0.3, 0.9}[trial % 3];
        if (!o.truncates()) continue;
        double border = 1.0;
        const std::vector<TokenId> expected = plain_truncation(logits, o, border);
        const auto kept = truncation.keep(logits, *std::max_element(logits.begin(), logits.end()), o);
        if (border < 1e-5) {  // a rounding decides: the sets may differ by that token
            ++at_border;
            continue;
        }
        CAPTURE(trial, o.top_k, o.top_p, o.min_p, o.temperature);
        REQUIRE(std::vector<TokenId>(kept.begin(), kept.end()) == expected);
        ++compared;
    }
    CHECK(compared > 300);
    CHECK(at_border < 100);
}

TEST_CASE("the repetition penalty touches each distinct token once", "[warp]") {
    std::vector<float> logits{2.0F, -2.0F, 1.0F, 0.0F, 4.0F};
    std::vector<bool> scratch;
    const std::vector<TokenId> text{0, 1, 1, 0, 0, 3};
    penalise_repetition(logits, 2.0, text, scratch);
    CHECK(logits == std::vector<float>{1.0F, -4.0F, 1.0F, 0.0F, 4.0F});
    penalise_repetition(logits, 2.0, std::vector<TokenId>{4}, scratch);
    CHECK(logits == std::vector<float>{1.0F, -4.0F, 1.0F, 0.0F, 2.0F});
}

TEST_CASE("the entropy of a row is that of plain loops, whatever the row looks like", "[warp]") {
    std::mt19937_64 engine(3);
    for (const float spread : {0.01F, 2.0F, 12.0F})
        for (const std::size_t columns : {1, 15, 256, 257, 5000})
            for (const double temperature : {0.3, 1.0, 2.5}) {
                std::normal_distribution<float> normal(0.0F, spread);
                std::vector<float> row(columns);
                for (float& x : row) x = normal(engine);
                if (columns > 100)
                    for (std::size_t i = 0; i < columns; i += 7) row[i] = -std::numeric_limits<float>::infinity();
                const float top = *std::max_element(row.begin(), row.end());
                double total = 0, expected = 0;
                for (const float x : row) total += std::exp((double(x) - double(top)) / temperature);
                for (const float x : row) {
                    const double p = std::exp((double(x) - double(top)) / temperature) / total;
                    expected -= p * std::log(p + 1e-5);
                }
                CAPTURE(spread, columns, temperature);
                CHECK(softmax_entropy(row, top, temperature, softmax_total(row, top, temperature), 1e-5) ==
                      Catch::Approx(expected).margin(2e-6));
            }
}

TEST_CASE("loops agree at every level of vector instructions") {
    const outrider::detail::VectorLevel before = outrider::detail::vector_level();
    std::vector<float> logits(1003);
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(RandomKey(7, 0, 0).gumbel(i));
    const RowMaximum top = row_maximum(logits);
    const double total = softmax_total(logits, top.value, 0.8);
    std::vector<TokenId> picks;
    for (std::uint64_t seed = 0; seed < 50; ++seed)
        picks.push_back(gumbel_pick(logits, top.value, 0.8, RandomKey(seed, 1, 2)));
    for (const auto level : {outrider::detail::VectorLevel::portable, outrider::detail::VectorLevel::v3,
                             outrider::detail::VectorLevel::v4}) {
        outrider::detail::set_vector_level(level);
        CHECK(outrider::detail::vector_level() == std::min(level, outrider::detail::best_vector_level()));
        CHECK(row_maximum(logits).value == top.value);
        CHECK(row_maximum(logits).token == top.token);
        CHECK(std::abs(softmax_total(logits, top.value, 0.8) / total - 1) < 1e-6);
        // What may win is scored exactly, so that draws are the same bits.
        for (std::uint64_t seed = 0; seed < 50; ++seed)
            CHECK(gumbel_pick(logits, top.value, 0.8, RandomKey(seed, 1, 2)) == picks[seed]);
    }
    outrider::detail::set_vector_level(before);
}
