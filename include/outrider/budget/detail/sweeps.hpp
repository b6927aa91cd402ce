// A table of what passes cost, out of sweeps over several sizes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <outrider/budget/detail/curve.hpp>
#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/median.hpp>
#include <outrider/core/result.hpp>

namespace outrider::budget {

/// A sweep times every size once, one after another within milliseconds, so that a slow moment of the machine shifts
/// all sizes alike. Sizes are compared by their ratios inside sweeps; a sweep in which something else ran for a part of
/// the time disagrees with the others and is thrown away.
class Sweeps {
public:
    /// Sizes in rows, ascending.
    explicit Sweeps(std::vector<std::int64_t> rows) : rows_(std::move(rows)) {}

    /// Seconds of each size. Sweeps with a time that is none are ignored.
    void add(std::span<const double> seconds) {
        std::vector<double> logs;
        for (const double s : seconds)
            if (s > 0 && std::isfinite(s)) logs.push_back(std::log(s));
        if (logs.size() == rows_.size()) sweeps_.push_back(std::move(logs));
    }

    [[nodiscard]] std::size_t size() const noexcept { return sweeps_.size(); }

    /// Rows ascending, never falling; empty before the first sweep.
    [[nodiscard]] std::vector<PassTime> table() const {
        std::vector<PassTime> table;
        if (sweeps_.empty()) return table;
        const Fit fit = this->fit();
        std::vector<double> levels;
        for (const std::size_t i : fit.kept) levels.push_back(fit.levels[i]);
        std::vector<double> seconds;
        for (const double shape : fit.shape) seconds.push_back(std::exp(shape + detail::median(levels)));
        never_falling(seconds, std::vector<double>(seconds.size(), 1.0));
        for (std::size_t s = 0; s < rows_.size(); ++s) table.push_back({rows_[s], seconds[s]});
        return table;
    }

    /// Whether the table is worth remembering: most sweeps agreed, and the machine was about as fast in each.
    [[nodiscard]] bool steady() const {
        const Fit fit = this->fit();
        if (fit.agreed < kLeastKept || 3 * fit.agreed < 2 * sweeps_.size()) return false;
        std::vector<double> levels;
        for (const std::size_t i : fit.kept) levels.push_back(fit.levels[i]);
        std::sort(levels.begin(), levels.end());
        const std::size_t out = levels.size() / 8;
        return levels[levels.size() - 1 - out] - levels[out] < kSpread;
    }

    /// Whether another table says the same of these sizes, but for the speed of the machine as a whole.
    [[nodiscard]] bool agrees(std::span<const PassTime> other) const {
        const std::vector<PassTime> mine = table();
        if (mine.empty() || other.empty()) return false;
        std::vector<double> off;
        for (const PassTime& t : mine) off.push_back(std::log(read(other, t.rows) / t.seconds));
        const double level = detail::median(off);
        return std::all_of(off.begin(), off.end(), [&](double o) { return std::abs(o - level) < kDisagree; });
    }

private:
    static constexpr double kDisagree = 0.12;  ///< log of a ratio
    static constexpr double kSpread = 0.2;     ///< of the levels, without the outermost eighths
    static constexpr std::size_t kLeastKept = 3;

    struct Fit {
        std::vector<double> levels, shape;  ///< [sweeps], [sizes] logs
        std::vector<std::size_t> kept;      ///< sweeps that agree, or all where few do
        std::size_t agreed = 0;
    };

    /// Medians over the sweeps `of`, each after its own level was taken off.
    [[nodiscard]] std::vector<double> shape_of(const std::vector<std::size_t>& of,
                                               const std::vector<double>& levels) const {
        std::vector<double> shape(rows_.size());
        for (std::size_t s = 0; s < rows_.size(); ++s) {
            std::vector<double> logs;
            for (const std::size_t i : of) logs.push_back(sweeps_[i][s] - levels[i]);
            shape[s] = detail::median(logs);
        }
        return shape;
    }

    [[nodiscard]] Fit fit() const {
        Fit fit;
        std::vector<std::size_t> all;
        for (std::size_t i = 0; i < sweeps_.size(); ++i) {
            all.push_back(i);
            fit.levels.push_back(detail::median(sweeps_[i]));
        }
        if (all.empty()) return fit;
        for (int pass = 0; pass < 2; ++pass) {
            fit.shape = shape_of(fit.kept.empty() ? all : fit.kept, fit.levels);
            fit.kept.clear();
            for (const std::size_t i : all) {
                std::vector<double> off;
                for (std::size_t s = 0; s < rows_.size(); ++s) off.push_back(sweeps_[i][s] - fit.shape[s]);
                fit.levels[i] = detail::median(off);
                double worst = 0;
                for (const double o : off) worst = std::max(worst, std::abs(o - fit.levels[i]));
                if (worst < kThrown) fit.kept.push_back(i);
            }
        }
        fit.agreed = fit.kept.size();
        if (fit.agreed < kLeastKept) fit.kept = all;  // a busy machine: medians of all are the best there is
        fit.shape = shape_of(fit.kept, fit.levels);
        return fit;
    }

    static constexpr double kThrown = 0.25;  ///< a time of a sweep that far off its level (log)

    std::vector<std::int64_t> rows_;
    std::vector<std::vector<double>> sweeps_;  ///< [sweep][size] log seconds
};

/// How long sweeps may go on. They end before where enough of them agree.
struct SweepTime {
    double until = 0;   ///< by the clock
    double passes = 0;  ///< so many times the smallest size's seconds in any case, over two sizes at least
    int least = 3, enough = 6, most = 15;  ///< sweeps
};

/// Those of the sizes that a sweep can be afforded over, each measured once: ascending while they fit, and each at
/// least double the one before where not all can be expected to.
template <typename Seconds>
[[nodiscard]] std::vector<std::int64_t> affordable(std::span<const std::int64_t> sizes, const SweepTime& time,
                                                   const Clock& clock, const Seconds& seconds) {
    if (sizes.empty() || (clock() >= time.until && time.passes <= 0)) return {};
    (void)seconds(sizes.front());  // touches memory for the first time
    const double first = seconds(sizes.front());
    const double share = std::max(time.until - clock(), time.passes * first) / (1 + time.least);  // of one sweep
    const auto growth = [&](std::int64_t n) { return 0.75 + 0.25 * double(n) / double(sizes.front()); };  // or less
    double all = 0;
    for (const std::int64_t n : sizes) all += first * growth(n);
    std::vector<std::int64_t> rows{sizes.front()};
    double spent = first, last = first;
    for (const std::int64_t n : sizes.subspan(1)) {
        if (all > share && n < 2 * rows.back()) continue;
        if (spent + last * double(n) / double(rows.back()) > share && (rows.size() > 1 || time.passes <= 0)) break;
        last = seconds(n), spent += last;
        rows.push_back(n);
    }
    return rows;
}

/// Sweeps over what can be afforded of the sizes (rows, ascending), by `seconds(rows)`, which makes one pass. Every
/// other one goes downwards, so that no size always follows the same one.
template <typename Seconds>
[[nodiscard]] Sweeps run_sweeps(std::span<const std::int64_t> sizes, const SweepTime& time, const Clock& clock,
                                const Seconds& seconds) {
    const std::vector<std::int64_t> rows = affordable(sizes, time, clock, seconds);
    Sweeps sweeps(rows);
    std::vector<double> taken(rows.size());
    const auto more = [&](int made) {
        if (rows.empty() || made >= time.most) return false;
        if (made < time.least) return true;
        return clock() < time.until && !(made >= time.enough && sweeps.steady());
    };
    for (int i = 0; more(i); ++i) {
        for (std::size_t k = 0; k < rows.size(); ++k) {
            const std::size_t s = i % 2 == 0 ? k : rows.size() - 1 - k;
            taken[s] = seconds(rows[s]);
        }
        sweeps.add(taken);
    }
    return sweeps;
}

}  // namespace outrider::budget
