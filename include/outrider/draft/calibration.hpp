// What a drafter's stated probabilities turned out to be worth.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace outrider {

/// Bins nodes by depth and stated probability and keeps, for each bin, the ratio of what came true to what was stated.
/// A correction by ratio keeps the order inside a bin. Old outcomes fade, so it follows the text.
class Calibration {
public:
    /// The stated probability, corrected; in [1e-5, 0.995].
    [[nodiscard]] double operator()(std::int64_t depth, double stated) const {
        const Bin& bin = bins_[depth_of(depth)][bin_of(stated)];
        return std::clamp(stated * (bin.hits + kPrior) / (bin.stated + kPrior), 1e-5, 0.995);
    }

    /// A node whose parent was on the text's path: did its token follow?
    void learn(std::int64_t depth, double stated, bool came_true) {
        Bin& bin = bins_[depth_of(depth)][bin_of(stated)];
        if (bin.trials >= kMemory) bin.trials *= 0.5, bin.hits *= 0.5, bin.stated *= 0.5;
        bin.trials += 1;
        bin.stated += stated;
        bin.hits += came_true ? 1 : 0;
    }

private:
    static constexpr double kPrior = 2.0;      ///< hits that the stated value counts for
    static constexpr double kMemory = 2048.0;  ///< trials in a bin before it halves
    static constexpr std::array<double, 8> kEdges{0.03, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.85};

    struct Bin {
        double hits = 0, stated = 0, trials = 0;
    };

    static std::size_t bin_of(double stated) {
        return static_cast<std::size_t>(std::lower_bound(kEdges.begin(), kEdges.end(), stated) - kEdges.begin());
    }
    static std::size_t depth_of(std::int64_t depth) {
        return static_cast<std::size_t>(std::clamp<std::int64_t>(depth, 1, 5) - 1);
    }

    std::array<std::array<Bin, kEdges.size() + 1>, 5> bins_{};
};

}  // namespace outrider
