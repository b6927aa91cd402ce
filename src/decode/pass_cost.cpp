#include <outrider/decode/pass_cost.hpp>

#include <algorithm>

namespace outrider {

void PassCost::learn(std::int64_t rows, double seconds) {
    const std::size_t at = nearest(rows);
    Mean& mean = measured_[at];
    if (const double here = (*this)(rows); here > 0) seconds *= curve_[at] / here;  // what kRows[at] rows would take
    if (mean.weight >= 3) seconds = std::clamp(seconds, 0.5 * mean.seconds, 1.5 * mean.seconds);
    mean.weight = std::min(mean.weight + 1, 12.0);
    mean.seconds += (seconds - mean.seconds) / mean.weight;
    redraw();
}

double PassCost::operator()(std::int64_t rows) const {
    const auto upper = std::lower_bound(kRows.begin(), kRows.end(), rows);
    if (upper == kRows.begin()) return curve_.front();
    const auto b = std::min<std::size_t>(static_cast<std::size_t>(upper - kRows.begin()), kRows.size() - 1);
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

/// Fills the gaps between the measured points and keeps the curve from falling.
void PassCost::redraw() {
    std::size_t last = kRows.size();  // the measured point before; none yet
    double floor = 0;
    for (std::size_t i = 0; i < kRows.size(); ++i) {
        if (measured_[i].weight == 0) continue;
        const double value = std::max(measured_[i].seconds, floor);
        for (std::size_t j = last == kRows.size() ? 0 : last + 1; j < i; ++j)
            curve_[j] = last == kRows.size()
                            ? value
                            : floor + (value - floor) * double(kRows[j] - kRows[last]) / double(kRows[i] - kRows[last]);
        curve_[i] = floor = value;
        last = i;
    }
    for (std::size_t j = last + 1; j < kRows.size(); ++j) curve_[j] = floor * double(kRows[j]) / double(kRows[last]);
}

}  // namespace outrider
