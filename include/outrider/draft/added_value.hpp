// What one more drafter is worth beside those that have drafted already.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace outrider {

/// The tokens that a drafter added, as a function of what the drafters before it promised in the same round: where they
/// promise much, it mostly says the same again. Means of a few ranges of that promise, fading, so that they follow the
/// text; a range of which little is known is taken for like the others. A range in which the drafter does not pay is
/// looked at again from time to time, for a few calls: a drafter that has rested must catch up first, which is dear,
/// and its calibration is of another time. What finding out may lose is kept as an account: two tokens at the start, a
/// hundredth of all time, and what the drafter has gained, up to a few tokens.
class AddedValue {
public:
    /// A round has begun, and since the last one plain rounds would have made so many tokens.
    void pass(double tokens) {
        ++rounds_;
        promised_ = 0;
        savings_ = std::min(savings_ + kShare * tokens, kMostSaved);
    }

    /// Whether to ask the drafter where those before it promise `before` tokens, and a call costs as much as `price`
    /// tokens, but `now` this time, since it has to catch up. Counts the answer.
    [[nodiscard]] bool worth_asking(double before, double price, double now) {
        if (rounds_ <= kFirstRounds) return false;  // those before it have the first word, and are calibrated
        Range& range = ranges_[range_of(before)];
        const double added = expected(range);
        const bool known = all_.weight >= kKnown;
        if (known && added > price) {
            range.interval = kFirstInterval, range.rested = 0;
            return true;
        }
        const bool looking = trial_ > 0;
        if (!looking && known && ++range.rested < range.interval) return false;
        // Others of a batch may have been asked in this round already, and have not paid yet.
        if (promised_ + now - added > savings_) return false;
        promised_ += std::max(0.0, now - added);
        if (looking) return --trial_, true;
        if (known) range.rested = 0, range.interval = std::min(2 * range.interval, kLongestInterval), trial_ = kTrial;
        return true;
    }

    /// It was asked, added so many tokens, and cost as much as so many.
    void learn(double before, double added, double cost) {
        ranges_[range_of(before)].mean.learn(added);
        all_.learn(added);
        savings_ = std::min(savings_ + added - cost, kMostSaved);
    }

private:
    static constexpr std::array<double, 6> kEdges{0.05, 0.3, 0.6, 1.0, 1.6, 2.5};
    static constexpr double kKnown = 10, kMemory = 24, kPrior = 3;  ///< drafts
    static constexpr double kShare = 0.01, kMostSaved = 4;
    static constexpr std::int64_t kFirstRounds = 3, kFirstInterval = 16, kLongestInterval = 128;
    static constexpr std::int64_t kTrial = 4;  ///< more calls after a look: the first one catches up, and says little

    struct Mean {
        double value = 0, weight = 0;
        void learn(double x) {
            weight = std::min(weight + 1, kMemory);
            value += (x - value) / weight;
        }
    };
    struct Range {
        Mean mean;
        std::int64_t rested = 0, interval = kFirstInterval;
    };

    static std::size_t range_of(double before) {
        return static_cast<std::size_t>(std::lower_bound(kEdges.begin(), kEdges.end(), before) - kEdges.begin());
    }
    [[nodiscard]] double expected(const Range& range) const {
        return (range.mean.value * range.mean.weight + all_.value * kPrior) / (range.mean.weight + kPrior);
    }

    std::array<Range, kEdges.size() + 1> ranges_{};
    Mean all_;
    double savings_ = 2;   ///< tokens
    double promised_ = 0;  ///< of these, what this round's calls may lose
    std::int64_t rounds_ = 0, trial_ = 0;
};

}  // namespace outrider
