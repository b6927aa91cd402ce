// What a target pass costs as a function of its rows: measured beforehand where it was, and followed while decoding.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <outrider/budget/detail/curve.hpp>
#include <outrider/core/result.hpp>

namespace outrider::budget {

/// seconds = level * shape(rows) + drag * (seconds that drafting took before the pass).
///
/// The level is how fast the machine is now: a slow minute moves all sizes alike. The shape is what was measured
/// beforehand, corrected size by size by what passes were off. The drag is what a draft costs beside its own time: a
/// pass that follows one finds caches cold and threads asleep, at every size alike, so it belongs to the draft and not
/// to the nodes. Level and drag are the two states of a Kalman filter (Kalman 1960), so that rounds with and without a
/// draft tell them apart.
class PassCost {
public:
    /// `measured`: see Verifier::pass_times; empty: a pass of n rows is taken to cost as much as n + 8 rows alone,
    /// until passes tell.
    explicit PassCost(std::span<const PassTime> measured = {}) : measured_(!measured.empty()) {
        for (std::size_t i = 0; i < Curve::kSizes; ++i)
            shape_.at[i] = measured_ ? read(measured, Curve::kRows[i]) : double(Curve::kRows[i]) + kUnmeasuredFixed;
        level_ = measured_ ? 1.0 : 0.0;
        redraw();
    }

    /// A pass over `rows` rows took this long, after so many seconds of drafting (0: none).
    void learn(std::int64_t rows, double seconds, double drafting = 0) {
        if (!(seconds > 0) || !std::isfinite(seconds)) return;
        if (level_ == 0) level_ = seconds / shape_(rows), redraw();
        const std::size_t at = Curve::nearest(rows);
        Factor& factor = factors_[at];
        const double usual = curve_(rows), expected = usual + drag_ * drafting;
        // One slow pass says little. A size that was never seen nor measured is wherever its first passes are.
        const bool known = measured_ || factor.passes >= kFew;
        const double seen = known ? std::clamp(seconds, 0.6 * expected, 1.5 * expected) : seconds;
        if (known) follow(usual / level_, drafting, seen - expected);
        factor.passes = std::min(factor.passes + 1, kMemory);
        const double rate = 1.0 / (factor.passes + (measured_ ? kTrust : 0.0));
        // `rows` may lie beside the size that it is counted for.
        const double there = std::max(seen - drag_ * drafting, 0.1 * seen) * curve_.at[at] / usual;
        factor.value += rate * (there / (level_ * shape_.at[at]) - factor.value);
        redraw();
    }

    /// Expected seconds of a pass that follows no draft. Zero where nothing was measured and nothing learnt.
    [[nodiscard]] double operator()(std::int64_t rows) const { return curve_(rows); }

    /// Seconds that each second of drafting adds to the pass after it.
    [[nodiscard]] double drag() const noexcept { return drag_; }

    [[nodiscard]] bool measured() const noexcept { return measured_; }

    /// The largest size of which a few passes have been seen; 0: none.
    [[nodiscard]] std::int64_t largest_seen() const {
        for (std::size_t i = Curve::kSizes; i-- > 0;)
            if (factors_[i].passes >= kFew) return Curve::kRows[i];
        return 0;
    }

private:
    static constexpr double kUnmeasuredFixed = 8;    ///< rows that a pass's fixed cost is taken for
    static constexpr double kFew = 3, kMemory = 16;  ///< passes of a size
    static constexpr double kTrust = 4;              ///< passes that what was measured of a size counts for
    static constexpr double kNoise = 0.15;           ///< of a pass
    static constexpr double kLevelWalk = 0.012, kDragWalk = 0.004;  ///< from pass to pass

    struct Factor {
        double value = 1, passes = 0;  ///< passes of this size over shape * level
    };

    /// One step of the filter: the pass was `off` seconds longer than level * shape + drag * drafting.
    void follow(double shape, double drafting, double off) {
        const double walk = kLevelWalk * level_, noise = kNoise * level_ * shape;
        level_variance_ += walk * walk, drag_variance_ += kDragWalk * kDragWalk;
        if (level_variance_ > level_ * level_) level_variance_ = level_ * level_;
        const double l = level_variance_ * shape + both_ * drafting, d = both_ * shape + drag_variance_ * drafting;
        const double spread = l * shape + d * drafting + noise * noise;
        level_ = std::max(level_ + l / spread * off, 0.5 * level_);
        drag_ = std::clamp(drag_ + d / spread * off, 0.0, kMostDrag);
        level_variance_ -= l * l / spread, drag_variance_ -= d * d / spread, both_ -= l * d / spread;
    }

    /// The curve anew. Sizes never seen lie between those that were as the shape says.
    void redraw() {
        std::array<std::size_t, Curve::kSizes> sizes{};
        std::array<double, Curve::kSizes> seconds{}, weights{};
        std::size_t seen = 0;
        for (std::size_t i = 0; i < Curve::kSizes; ++i)
            if (factors_[i].passes > 0) {
                sizes[seen] = i, weights[seen] = factors_[i].passes;
                seconds[seen++] = level_ * shape_.at[i] * factors_[i].value;
            }
        never_falling(std::span(seconds).first(seen), std::span<const double>(weights).first(seen));
        const auto ratio = [&](std::size_t k) { return seconds[k] / shape_.at[sizes[k]]; };
        for (std::size_t i = 0, next = 0; i < Curve::kSizes; ++i) {
            while (next < seen && sizes[next] < i) ++next;
            double bent = level_;
            if (seen > 0) bent = next == seen ? ratio(seen - 1) : ratio(next);
            if (next > 0 && next < seen) {
                const std::size_t a = sizes[next - 1], b = sizes[next];
                const double share =
                    double(Curve::kRows[i] - Curve::kRows[a]) / double(Curve::kRows[b] - Curve::kRows[a]);
                bent = ratio(next - 1) + (ratio(next) - ratio(next - 1)) * share;
            }
            curve_.at[i] = std::max(bent * shape_.at[i], i > 0 ? curve_.at[i - 1] : 0.0);
            if (next < seen) curve_.at[i] = std::min(curve_.at[i], seconds[next]);
        }
    }

    static constexpr double kMostDrag = 8;

    Curve shape_, curve_;
    std::array<Factor, Curve::kSizes> factors_{};
    bool measured_;
    double level_ = 0, drag_ = 0;                                  ///< level 0: unknown
    double level_variance_ = 0, drag_variance_ = 0.25, both_ = 0;  ///< of the filter; the level's relative to itself
};

}  // namespace outrider::budget
