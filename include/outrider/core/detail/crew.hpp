// How many members of a team take part in its next run, on a machine that does other work too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace outrider::detail {

/// Where other work takes cores, members are late at barriers and the others wait for them: then fewer do more. What
/// counts is the work that the first member gets done in a second, times what so many members do while it does it. Its
/// processor time says both: it has none while it waits for others, and none while other work has its core, which it
/// may also have because a second member sits on the core that the first could have moved to.
///
/// Another number of members is tried, fewer only where fewer could do more, and kept where it did more. Slices of time
/// of other work make short trials a matter of luck: one that is not clear soon goes on for longer. What trials lose is
/// bounded: one that lost t seconds is followed by t / kShare without any.
class Crew {
public:
    explicit Crew(int size) : size_(size), members_(size), seen_(static_cast<std::size_t>(size) + 1) {}

    /// Of the next run.
    [[nodiscard]] int members() const noexcept { return members_; }

    /// What so many members do while the first does 1.
    [[nodiscard]] static double scale(int members) { return 1 + kAdds * double(members - 1); }

    /// A run took so many seconds, and did what one member alone would have done in `work` seconds of processor time:
    /// those of the first member, each times scale(members that took part in it).
    void learn(double seconds, double work) {
        if (size_ == 1) return;
        window_ += seconds, window_work_ += work;
        if (window_ < kWindow) return;
        const double fade = std::exp(-window_ / kMemory);
        for (Seen& size : seen_) size.seconds *= fade, size.work *= fade;
        Seen& now = seen_[static_cast<std::size_t>(members_)];
        now.seconds += window_, now.work += window_work_;
        for (Direction& direction : directions_) direction.rested += window_;
        tried_ += window_, lived_ += window_;
        if (trying_ == 0)
            try_another();
        else if (tried_ >= (std::abs(gains()) > kClear ? kShortTrial : longest_trial()))
            judge();
        window_ = window_work_ = 0;
    }

private:
    static constexpr double kWindow = 0.02, kShortTrial = 0.06, kTrial = 0.24;  ///< seconds
    static constexpr double kKnown = 0.1, kLittle = 0.3;                        ///< seconds, of a rate
    static constexpr double kMemory = 0.8;  ///< seconds in which what was seen fades to a third
    static constexpr double kClear = 0.5;   ///< of a rate
    static constexpr double kRest = 0.4, kLongestRest = 1.6, kShare = 0.04;
    static constexpr double kTrialShare = 0.1;                           ///< of the time up to now
    static constexpr double kAlike = 0.05, kSurely = 0.25, kPoor = 0.5;  ///< of a rate
    static constexpr double kAdds = 0.8;  ///< of the first member's speed, by each further one

    struct Seen {
        double seconds = 0, work = 0;
        [[nodiscard]] double rate() const { return seconds > 0 ? work / seconds : 0; }
    };
    struct Direction {
        double rest = 0, rested = 0;
    };
    [[nodiscard]] double rate(int members) const { return seen_[static_cast<std::size_t>(members)].rate(); }
    [[nodiscard]] double gains() const { return rate(members_) / std::max(rate(from_), 1e-9) - 1; }
    [[nodiscard]] double longest_trial() const { return std::clamp(kTrialShare * lived_, kShortTrial, kTrial); }
    /// What a trial must gain. Where all do about the same, fewer leave cores to others; but a short trial may have
    /// been lucky.
    [[nodiscard]] double enough() const {
        if (trying_ > 0) return kAlike;
        const bool poor = rate(from_) < kPoor * scale(members_);
        return tried_ < kTrial && !poor ? kSurely : -kAlike;
    }
    [[nodiscard]] int step() const { return std::max(1, members_ / 8); }

    void try_another() {
        // A slice of time of other work in the first moments says little, unless hardly anything gets done.
        const double known = seen_[static_cast<std::size_t>(members_)].seconds < kKnown ? kLittle : 1.0;
        const bool could_be_less = members_ > 1 && rate(members_) < known * scale(members_ - step());
        for (const int way : {-1, 1}) {
            const Direction& direction = directions_[way > 0];
            if (direction.rested < direction.rest || (way < 0 ? !could_be_less : members_ == size_)) continue;
            from_ = members_;
            members_ = std::clamp(members_ + way * step(), 1, size_);
            trying_ = way, tried_ = 0;
            return;
        }
    }

    void judge() {
        Direction &tried = directions_[trying_ > 0], &other = directions_[trying_ < 0];
        const double gained = gains();
        if (gained > enough()) {
            tried = {}, other = {kRest, 0};
        } else {
            members_ = from_;
            tried.rest = std::max(std::clamp(2 * tried.rest, kRest, kLongestRest), -gained * tried_ / kShare);
        }
        tried.rested = 0, trying_ = 0;
    }

    int size_, members_, from_ = 0;
    int trying_ = 0;  ///< 1: more members, -1: fewer
    double window_ = 0, window_work_ = 0, tried_ = 0, lived_ = 0;
    std::vector<Seen> seen_;        ///< by number of members
    Direction directions_[2] = {};  ///< fewer, more
};

}  // namespace outrider::detail
