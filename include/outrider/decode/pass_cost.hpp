// What a target pass costs as a function of its rows, measured while decoding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace outrider {

/// A piecewise linear, never falling curve through running means at fixed row counts. New passes count most, so the
/// curve follows the machine and the growing context; one slow pass moves it little.
class PassCost {
public:
    /// A pass over `rows` rows took this long.
    void learn(std::int64_t rows, double seconds);

    /// Expected seconds. Row counts never seen are interpolated; beyond them the curve goes on in proportion. Zero
    /// before the first pass.
    [[nodiscard]] double operator()(std::int64_t rows) const;

    /// The next row count of the curve above (or below) `rows`.
    [[nodiscard]] static std::int64_t above(std::int64_t rows);
    [[nodiscard]] static std::int64_t below(std::int64_t rows);

private:
    static constexpr std::array<std::int64_t, 26> kRows{1,  2,  3,  4,  5,  6,   7,   8,   10,  12,  14,  16,   20,
                                                        24, 28, 32, 40, 48, 64,  96,  128, 192, 256, 384, 512,  1024};
    struct Mean {
        double seconds = 0, weight = 0;
    };

    static std::size_t nearest(std::int64_t rows);
    void redraw();

    std::array<Mean, kRows.size()> measured_{};
    std::array<double, kRows.size()> curve_{};
};

}  // namespace outrider
