// A function of the number of rows that never falls: what passes of several sizes cost.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/result.hpp>

namespace outrider::budget {

/// Neighbours that fall share their weighted mean (isotonic regression by pooling adjacent violators; Barlow et al.
/// 1972): one slow measurement of a small size must not lift all larger ones. Weights are positive.
inline void never_falling(std::span<double> values, std::span<const double> weights) {
    struct Pool {
        double mean, weight;
        std::size_t count;
    };
    std::vector<Pool> pools;
    for (std::size_t k = 0; k < values.size(); ++k) {
        pools.push_back({values[k], weights[k], 1});
        while (pools.size() > 1 && pools[pools.size() - 2].mean > pools.back().mean) {
            const Pool last = pools.back();
            pools.pop_back();
            Pool& pool = pools.back();
            pool.mean = (pool.mean * pool.weight + last.mean * last.weight) / (pool.weight + last.weight);
            pool.weight += last.weight, pool.count += last.count;
        }
    }
    std::size_t k = 0;
    for (const Pool& pool : pools)
        for (std::size_t n = 0; n < pool.count; ++n) values[k++] = pool.mean;
}

/// Measured points read at `rows`: straight lines between them, the last slope beyond the largest. At least one point,
/// rows ascending.
[[nodiscard]] inline double read(std::span<const PassTime> points, std::int64_t rows) {
    const auto fewer = [](const PassTime& t, std::int64_t n) { return t.rows < n; };
    const auto upper = std::lower_bound(points.begin(), points.end(), rows, fewer);
    if (upper == points.begin()) return upper->seconds;
    const bool beyond = upper == points.end();
    if (points.size() == 1) return upper[-1].seconds * double(rows) / double(upper[-1].rows);
    const PassTime &a = beyond ? upper[-2] : upper[-1], &b = beyond ? upper[-1] : *upper;
    const double slope = (b.seconds - a.seconds) / double(b.rows - a.rows);
    if (!beyond) return a.seconds + slope * double(rows - a.rows);
    // A last step that is too flat must not promise that all further rows are free.
    return b.seconds + std::max(slope, 0.5 * b.seconds / double(b.rows)) * double(rows - b.rows);
}

/// Values at fixed row counts, dense where they are few, and straight lines between.
class Curve {
public:
    static constexpr std::array<std::int64_t, 27> kRows{1,  2,  3,  4,  5,  6,  7,   8,   10,  12,  14,  16,  20,  24,
                                                        28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024};
    static constexpr std::size_t kSizes = kRows.size();

    std::array<double, kSizes> at{};

    /// In proportion beyond the largest size.
    [[nodiscard]] double operator()(std::int64_t rows) const {
        const auto upper = std::lower_bound(kRows.begin(), kRows.end(), rows);
        if (upper == kRows.begin()) return at.front();
        if (upper == kRows.end()) return at.back() * double(rows) / double(kRows.back());
        const auto b = static_cast<std::size_t>(upper - kRows.begin());
        const double share = double(rows - kRows[b - 1]) / double(kRows[b] - kRows[b - 1]);
        return at[b - 1] + (at[b] - at[b - 1]) * share;
    }

    /// Index of the size that `rows` counts for.
    [[nodiscard]] static std::size_t nearest(std::int64_t rows) {
        const auto it = std::lower_bound(kRows.begin(), kRows.end(), rows);
        if (it == kRows.begin()) return 0;
        if (it == kRows.end()) return kSizes - 1;
        const auto b = static_cast<std::size_t>(it - kRows.begin());
        return kRows[b] - rows <= rows - kRows[b - 1] ? b : b - 1;
    }

    /// The next row count above, or below; `rows` itself where there is none.
    [[nodiscard]] static std::int64_t above(std::int64_t rows) {
        const auto it = std::upper_bound(kRows.begin(), kRows.end(), rows);
        return it == kRows.end() ? rows : *it;
    }
    [[nodiscard]] static std::int64_t below(std::int64_t rows) {
        const auto it = std::lower_bound(kRows.begin(), kRows.end(), rows);
        return it == kRows.begin() ? rows : *(it - 1);
    }
};

}  // namespace outrider::budget
