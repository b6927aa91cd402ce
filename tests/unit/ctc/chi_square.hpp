// Pearson's test of counts against a law, for tests of sampling.
#pragma once

#include <cmath>
#include <map>

namespace outrider::reference {

struct ChiSquare {
    double statistic = 0;
    double freedom = 0;

    /// Within about four and a half standard deviations of what the law itself gives (Wilson and Hilferty's cube-root
    /// approximation): a true law fails once in some hundred thousand seeds, and seeds here are fixed.
    [[nodiscard]] bool plausible() const {
        if (freedom < 1) return statistic == 0;
        const double v = 2.0 / (9.0 * freedom);
        return (std::cbrt(statistic / freedom) - (1.0 - v)) / std::sqrt(v) < 4.5;
    }
};

/// Cells with fewer than five expected draws are pooled. A draw that the law says is impossible counts without bound.
template <typename Key>
ChiSquare chi_square(const std::map<Key, double>& counts, const std::map<Key, double>& law) {
    double draws = 0;
    for (const auto& [key, count] : counts) draws += count;
    ChiSquare result;
    double pooled_expected = 0, pooled_count = 0, known = 0;
    for (const auto& [key, probability] : law) {
        const auto at = counts.find(key);
        const double count = at == counts.end() ? 0.0 : at->second, expected = probability * draws;
        known += count;
        if (expected < 5) {
            pooled_expected += expected, pooled_count += count;
            continue;
        }
        result.statistic += (count - expected) * (count - expected) / expected;
        result.freedom += 1;
    }
    if (pooled_expected > 0.5) {
        result.statistic += (pooled_count - pooled_expected) * (pooled_count - pooled_expected) / pooled_expected;
        result.freedom += 1;
    } else if (pooled_count > 5) {
        result.statistic += 1e9;
    }
    if (known < draws) result.statistic += 1e9;
    result.freedom -= 1;
    return result;
}

}  // namespace outrider::reference
