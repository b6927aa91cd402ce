// What a drafter's stated probabilities turn out to be worth.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace outrider::budget {

/// How often what was expected came true. Older outcomes fade once so much was expected.
class HitRate {
public:
    void learn(double expected, double came_true, double memory) {
        if (expected_ >= memory) expected_ *= 0.5, hits_ *= 0.5;
        expected_ += expected, hits_ += came_true;
    }

    /// Hits over what was expected; `prior` counts for as much as `weight` expected hits.
    [[nodiscard]] double operator()(double prior, double weight) const {
        return (hits_ + prior * weight) / (expected_ + weight);
    }

private:
    double hits_ = 0, expected_ = 0;
};

/// Corrects the probability of a node given its parent by what came true among nodes of that depth that stated about as
/// much, and all of them by what came true lately: texts have easy and hard stretches. A correction by ratio keeps the
/// order among nodes of one kind.
class HitRates {
public:
    /// The stated probability, corrected; in [1e-5, 0.995].
    [[nodiscard]] double operator()(std::int64_t depth, double stated) const {
        const double lately = lately_(1.0, kLately);
        return std::clamp(stated * bins_[depth_of(depth)][bin_of(stated)](lately, kPrior), 1e-5, 0.995);
    }

    /// A node whose parent was on the text's path: did its token follow?
    void learn(std::int64_t depth, double stated, bool came_true) {
        const double hit = came_true ? 1 : 0;
        bins_[depth_of(depth)][bin_of(stated)].learn(stated, hit, kMemory);
        lately_.learn(stated, hit, kLatelyMemory);
    }

private:
    static constexpr double kPrior = 2.0, kLately = 3.0;  ///< expected hits
    static constexpr double kMemory = 200.0, kLatelyMemory = 24.0;
    static constexpr std::array<double, 8> kEdges{0.03, 0.08, 0.15, 0.25, 0.4, 0.55, 0.7, 0.85};
    static constexpr std::size_t kDepths = 5;

    static std::size_t bin_of(double stated) {
        return static_cast<std::size_t>(std::lower_bound(kEdges.begin(), kEdges.end(), stated) - kEdges.begin());
    }
    static std::size_t depth_of(std::int64_t depth) {
        return static_cast<std::size_t>(std::clamp<std::int64_t>(depth, 1, kDepths) - 1);
    }

    std::array<std::array<HitRate, kEdges.size() + 1>, kDepths> bins_{};
    HitRate lately_;
};

}  // namespace outrider::budget
