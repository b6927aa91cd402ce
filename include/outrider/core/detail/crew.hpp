// How many members of a team take part in its next run, on a machine that does other work too.
#pragma once

#include <algorithm>

namespace outrider::detail {

/// Where other work takes a core, the member that ran there is late at every barrier, and all others wait for it:
/// then fewer members do more. Runs are judged by windows of some milliseconds: by the share of their time in which
/// members waited for late ones. Now and then a window has one member more, the more seldom the longer that has not
/// paid.
class Crew {
public:
    explicit Crew(int size) : size_(size), members_(size) {}

    /// Of the next run.
    [[nodiscard]] int members() const noexcept { return members_; }

    /// A run took so many seconds; its members together waited `late` of them for late ones.
    void learn(double seconds, double late) {
        time_ += seconds, late_ += late;
        if (time_ < (trying_ || members_ == size_ ? kWindow : rest_)) return;
        const int before = members_;
        if (members_ > 1 && speed() < scale(members_ - 1)) {
            --members_;
            rest_ = trying_ ? std::min(2 * rest_, kLongestRest) : kRest;
            trying_ = false;
        } else if (trying_) {
            trying_ = false, rest_ = kRest;
        } else if (members_ < size_) {
            ++members_, trying_ = true;
        }
        if (members_ != before || time_ > kMemory) time_ = late_ = 0;
    }

private:
    static constexpr double kWindow = 0.02, kRest = 0.1, kLongestRest = 3.2, kMemory = 0.1;  ///< seconds
    static constexpr double kAdds = 0.8;  ///< of the first member's speed, by each further one

    static double scale(int members) { return 1 + kAdds * double(members - 1); }
    /// Of one member alone. While one is late, all others wait.
    [[nodiscard]] double speed() const {
        return scale(members_) * (1 - std::min(1.0, late_ / (time_ * double(members_ - 1))));
    }

    int size_, members_;
    double time_ = 0, late_ = 0;  ///< of the window
    double rest_ = kRest;         ///< until one more is tried
    bool trying_ = false;
};

}  // namespace outrider::detail
