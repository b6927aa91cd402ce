#include <outrider/decode/pass_cost.hpp>

#include <algorithm>

namespace outrider {

namespace {

constexpr double kUnmeasuredFixed = 4.0;  // rows that a pass's fixed cost is taken for, before anything is known
constexpr double kOffsetMemory = 12.0;    // passes
constexpr double kSpeedRate = 1.0 / 12.0;

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
    double ratio = seconds / (*this)(rows);
    if (here.weight >= 3) ratio = std::clamp(ratio, 0.5, 1.5);
    // The first passes of a size tell where the size lies; later ones how fast the machine is as well.
    if (here.weight >= 3) speed_ *= 1.0 + (ratio - 1.0) * kSpeedRate;
    here.weight = std::min(here.weight + 1, kOffsetMemory);
    here.factor *= 1.0 + (ratio - 1.0) / here.weight;
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

/// Sizes never seen take the offset of their neighbours; then the curve is kept from falling.
void PassCost::redraw() {
    std::array<double, kRows.size()> factor{};
    std::size_t last = kRows.size();  // the seen size before; none yet
    for (std::size_t i = 0; i < kRows.size(); ++i) {
        factor[i] = last == kRows.size() ? 1.0 : factor[last];
        if (offsets_[i].weight == 0) continue;
        factor[i] = offsets_[i].factor;
        for (std::size_t j = last == kRows.size() ? 0 : last + 1; j < i; ++j)
            factor[j] = last == kRows.size() ? factor[i]
                                             : factor[last] + (factor[i] - factor[last]) *
                                                                  double(kRows[j] - kRows[last]) /
                                                                  double(kRows[i] - kRows[last]);
        last = i;
    }
    double floor = 0;
    for (std::size_t i = 0; i < kRows.size(); ++i) curve_[i] = floor = std::max(floor, base_[i] * factor[i] * speed_);
    const auto first = static_cast<std::size_t>(
        std::find_if(offsets_.begin(), offsets_.end(), [](const Offset& o) { return o.weight > 0; }) - offsets_.begin());
    if (measured_ || last == kRows.size() || last == first) return;
    const double slope = (curve_[last] - curve_[first]) / double(kRows[last] - kRows[first]);
    for (std::size_t i = last + 1; i < kRows.size(); ++i) curve_[i] = curve_[last] + slope * double(kRows[i] - kRows[last]);
}

}  // namespace outrider
