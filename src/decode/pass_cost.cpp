#include <outrider/decode/pass_cost.hpp>

#include <algorithm>
#include <vector>

namespace outrider {

namespace {

constexpr double kUnmeasuredFixed = 4.0;  // rows that a pass's fixed cost is taken for, before anything is known
constexpr double kOffsetMemory = 12.0;    // passes
constexpr double kSpeedRate = 1.0 / 12.0;
constexpr double kSlopePrior = 1.5;  // rows
constexpr double kFewPasses = 3.0;   // of a size, before it counts as known

/// `measured` read at `rows`: interpolated, the last slope beyond the largest, never falling.
double read(std::span<const PassTime> measured, std::int64_t rows) {
    const auto at_least = [](const PassTime& t, std::int64_t n) { return t.rows < n; };
    const auto upper = std::lower_bound(measured.begin(), measured.end(), rows, at_least);
    if (upper == measured.begin()) return upper->seconds;
    if (measured.size() == 1) return upper[-1].seconds * double(rows) / double(upper[-1].rows);
    const PassTime& b = upper == measured.end() ? upper[-1] : *upper;
    const PassTime& a = upper == measured.end() ? upper[-2] : upper[-1];
    const double slope = (b.seconds - a.seconds) / double(b.rows - a.rows);
    // A last step that is too flat must not promise that all further rows are free.
    const double least = upper == measured.end() ? 0.5 * b.seconds / double(b.rows) : 0.0;
    const PassTime& from = upper == measured.end() ? b : a;
    return from.seconds + std::max(slope, least) * double(rows - from.rows);
}

}  // namespace

PassCost::PassCost(std::span<const PassTime> measured) : measured_(!measured.empty()) {
    for (std::size_t i = 0; i < kRows.size(); ++i)
        base_[i] = measured.empty() ? double(kRows[i]) + kUnmeasuredFixed : read(measured, kRows[i]);
    if (!measured.empty()) speed_ = 1.0;
    redraw();
}

void PassCost::learn(std::int64_t rows, double seconds) {
    if (!(seconds > 0)) return;
    const std::size_t at = nearest(rows);
    Offset& here = offsets_[at];
    if (speed_ == 0) {
        speed_ = 1.0, redraw();
        speed_ = seconds / (*this)(rows), redraw();
    }
    // `rows` may lie beside the size that it is counted for.
    double seen = seconds / (base_[at] * speed_) * ((*this)(kRows[at]) / (*this)(rows));
    if (here.weight >= kFewPasses)
        seen = std::clamp(seen, 0.5 * here.factor, 1.5 * here.factor);
    else if (measured_)  // a pass may take longer than it should, for many reasons, but not less
        seen = std::min(seen, 1.5 * here.factor);
    // The first passes of a size tell where the size lies; later ones how fast the machine is as well.
    if (here.weight >= kFewPasses) speed_ *= 1.0 + (seen / here.factor - 1.0) * kSpeedRate;
    here.weight = std::min(here.weight + 1, kOffsetMemory);
    here.factor += (seen - here.factor) / here.weight;
    redraw();
}

double PassCost::operator()(std::int64_t rows) const {
    const auto upper = std::lower_bound(kRows.begin(), kRows.end(), rows);
    if (upper == kRows.begin()) return curve_.front();
    if (upper == kRows.end()) return curve_.back() * double(rows) / double(kRows.back());
    const auto b = static_cast<std::size_t>(upper - kRows.begin());
    const double span = double(kRows[b] - kRows[b - 1]);
    return curve_[b - 1] + (curve_[b] - curve_[b - 1]) * double(rows - kRows[b - 1]) / span;
}

std::int64_t PassCost::above(std::int64_t rows) {
    const auto it = std::upper_bound(kRows.begin(), kRows.end(), rows);
    return it == kRows.end() ? rows : *it;
}

std::int64_t PassCost::below(std::int64_t rows) {
    const auto it = std::lower_bound(kRows.begin(), kRows.end(), rows);
    return it == kRows.begin() ? rows : *(it - 1);
}

std::size_t PassCost::nearest(std::int64_t rows) {
    const auto it = std::lower_bound(kRows.begin(), kRows.end(), rows);
    if (it == kRows.begin()) return 0;
    if (it == kRows.end()) return kRows.size() - 1;
    const auto at = static_cast<std::size_t>(it - kRows.begin());
    return kRows[at] - rows <= rows - kRows[at - 1] ? at : at - 1;
}

/// The curve anew: what was seen, kept from falling by sharing means, and what that says of the sizes between.
void PassCost::redraw() {
    std::array<std::size_t, kRows.size()> sizes{};  // those seen
    std::array<double, kRows.size()> seconds{};
    std::size_t seen = 0;
    for (std::size_t i = 0; i < kRows.size(); ++i)
        if (offsets_[i].weight > 0) sizes[seen] = i, seconds[seen++] = base_[i] * offsets_[i].factor * speed_;
    if (seen == 0) {
        for (std::size_t i = 0; i < kRows.size(); ++i) curve_[i] = base_[i] * speed_;
        return;
    }
    level(std::span(sizes).first(seen), std::span(seconds).first(seen));
    // Between two sizes, and beyond them: the shape known beforehand, bent to what was seen; without one, straight
    // lines.
    const auto shape = [&](std::size_t i) { return measured_ ? base_[i] : 1.0; };
    std::array<double, kRows.size()> ratio{};
    for (std::size_t k = 0; k < seen; ++k) ratio[k] = seconds[k] / shape(sizes[k]);
    const double slope = measured_ ? 0.0 : last_slope(std::span(sizes).first(seen), std::span(seconds).first(seen));
    std::size_t next = 0;
    for (std::size_t i = 0; i < kRows.size(); ++i) {
        while (next < seen && sizes[next] < i) ++next;
        if (next == seen) {
            curve_[i] = ratio[seen - 1] * shape(i) + slope * double(kRows[i] - kRows[sizes[seen - 1]]);
        } else if (next == 0) {
            curve_[i] = measured_ ? ratio[0] * shape(i) : seconds[0] * base_[i] / base_[sizes[0]];
        } else {
            const double share =
                double(kRows[i] - kRows[sizes[next - 1]]) / double(kRows[sizes[next]] - kRows[sizes[next - 1]]);
            curve_[i] = std::clamp(shape(i) * (ratio[next - 1] + (ratio[next] - ratio[next - 1]) * share),
                                   seconds[next - 1], seconds[next]);
        }
    }
    for (std::size_t i = 1; i < kRows.size(); ++i) curve_[i] = std::max(curve_[i], curve_[i - 1]);
}

/// Pools neighbours that fall (weighted isotonic regression): one slow pass of a small size must not lift all larger
/// ones.
void PassCost::level(std::span<const std::size_t> sizes, std::span<double> seconds) const {
    struct Pool {
        double mean, weight;
        std::size_t count;
    };
    std::vector<Pool> pools;
    for (std::size_t k = 0; k < sizes.size(); ++k) {
        pools.push_back({seconds[k], offsets_[sizes[k]].weight, 1});
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
        for (std::size_t n = 0; n < pool.count; ++n) seconds[k++] = pool.mean;
}

/// Seconds a row beyond the largest size seen, where no shape is known: what all sizes seen say, the unmeasured shape
/// counting for as much as a row or two.
double PassCost::last_slope(std::span<const std::size_t> sizes, std::span<const double> seconds) const {
    const double rows = double(kRows[sizes.back()] - kRows[sizes.front()]);
    const double prior = seconds.front() / base_[sizes.front()];
    return (prior * kSlopePrior + seconds.back() - seconds.front()) / (kSlopePrior + rows);
}

std::int64_t PassCost::smallest_seen() const {
    for (std::size_t i = 0; i < kRows.size(); ++i)
        if (offsets_[i].weight >= kFewPasses) return kRows[i];
    return 0;
}

std::int64_t PassCost::largest_seen() const {
    for (std::size_t i = kRows.size(); i-- > 0;)
        if (offsets_[i].weight >= kFewPasses) return kRows[i];
    return 0;
}

}  // namespace outrider
