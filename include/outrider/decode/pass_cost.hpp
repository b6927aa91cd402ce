// What a target pass costs as a function of its rows: measured beforehand where it was, and followed while decoding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <outrider/core/detail/export.hpp>
#include <outrider/target/verifier.hpp>

namespace outrider {

/// A piecewise linear, never falling curve: a shape known beforehand, times the speed of the machine at present, times
/// what passes of about that size were off. New passes count most, so the curve follows the machine and the growing
/// context; one slow pass moves it little. Without a shape, sizes above all that were seen go on as those did.
class OUTRIDER_API PassCost {
public:
    /// `measured`: see Verifier::pass_times; empty: a pass of n rows is taken to cost as much as n + 4 rows alone,
    /// until passes tell.
    explicit PassCost(std::span<const PassTime> measured = {});

    /// A pass over `rows` rows took this long.
    void learn(std::int64_t rows, double seconds);

    /// Expected seconds; beyond the largest size the curve goes on in proportion. Zero where nothing was measured and
    /// nothing learnt.
    [[nodiscard]] double operator()(std::int64_t rows) const;

    /// The smallest and largest size of which a few passes have been seen; 0: none.
    [[nodiscard]] std::int64_t smallest_seen() const;
    [[nodiscard]] std::int64_t largest_seen() const;

    /// The next row count of the curve above (or below) `rows`.
    [[nodiscard]] static std::int64_t above(std::int64_t rows);
    [[nodiscard]] static std::int64_t below(std::int64_t rows);

private:
    static constexpr std::array<std::int64_t, 27> kRows{1,  2,  3,  4,  5,  6,  7,   8,   10,  12,  14,  16,  20,  24,
                                                        28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024};
    struct Offset {
        double factor = 1, weight = 0;  ///< passes of this size over base * speed
    };

    static std::size_t nearest(std::int64_t rows);
    void redraw();
    void level(std::span<const std::size_t> sizes, std::span<double> seconds) const;
    [[nodiscard]] double last_slope(std::span<const std::size_t> sizes, std::span<const double> seconds) const;

    std::array<double, kRows.size()> base_{};
    std::array<Offset, kRows.size()> offsets_{};
    std::array<double, kRows.size()> curve_{};
    bool measured_;
    double speed_ = 0;  ///< 0: unknown
};

}  // namespace outrider
