// When a drafter is asked that is not known to pay, and how much finding out may lose.
#pragma once

#include <algorithm>
#include <cstdint>

namespace outrider::budget {

/// What the rounds so far say of a drafter.
enum class Verdict : unsigned char {
    pays,      ///< rounds to come are expected to gain
    doubtful,  ///< they lose, but not much of what the drafter costs
    fails,
    hopeless,  ///< not even what the drafter states itself would pay
};

/// A drafter begins with a trial of some rounds, which runs to its end once begun: a single round says little. After it
/// the drafter is asked while it pays or may, and else tried again from time to time, the next trial twice as far away
/// when nothing came of one. Two accounts in plain rounds bound what that loses: one of steady calls, one of what comes
/// once, first calls and catching up. Each has a little at the start and a hundredth of all time; what drafting gains
/// goes into the first, up to a few rounds. Every drafter, and every part of a merged one, has its own.
class Exploration {
public:
    static constexpr std::int64_t kTrial = 10;  ///< rounds

    /// A round went by, in which plain decoding would have made `rounds` of its own.
    void pass(double rounds = 1) {
        early_ *= 1 - std::min(rounds, 10.0) / kEarlyRounds;
        balance_ = std::min(balance_ + (kShare + early_) * rounds, kMost);
        once_ = std::min(once_ + (kShare + early_) * rounds, kMostOnce);
    }

    /// Whether the drafter is to be asked now. `price`: plain rounds that a trial is expected to lose on steady calls;
    /// `once`: what its first call takes beside, for catching up.
    [[nodiscard]] bool wants(double price, double once) {
        if (open()) return true;
        if (++rested_ < interval_ || balance_ < std::min(price, kEnough) || once_ < std::min(once, kEnoughOnce))
            return false;
        trial_ = kTrial, rested_ = 0;
        return true;
    }

    /// What came of a round in which it was asked. `net`: plain rounds gained, at what steady calls cost; `once`: what
    /// the call cost beside.
    void asked(double net, double once, Verdict verdict) {
        balance_ = std::clamp(balance_ + net, -kMostDoubt, kMost);
        once_ = std::max(once_ - once, 0.0);
        if (trial_ > 0) --trial_;
        if (verdict == Verdict::hopeless || balance_ <= -kMostDebt) trial_ = 0;
        const double needed = verdict == Verdict::doubtful ? -kMostDoubt : 0.0;
        open_ =
            (verdict == Verdict::pays && balance_ > -kMostDebt) || (verdict != Verdict::hopeless && balance_ > needed);
        if (verdict == Verdict::pays) interval_ = kFirstInterval;
        if (open()) return;
        interval_ = std::min(2 * interval_, kLongestInterval), rested_ = 0;
    }

    [[nodiscard]] bool open() const noexcept { return open_ || trial_ > 0; }

private:
    static constexpr std::int64_t kFirstInterval = 24, kLongestInterval = 256;  ///< rounds
    static constexpr double kShare = 0.01, kEarlyShare = 0.02, kEarlyRounds = 400;
    static constexpr double kMost = 6, kEnough = 4, kMostDebt = 4, kMostDoubt = 10, kMostOnce = 4,
                            kEnoughOnce = 3;  ///< plain rounds

    double balance_ = 2, once_ = 3, early_ = kEarlyShare;
    std::int64_t trial_ = kTrial, rested_ = 0, interval_ = kFirstInterval;
    bool open_ = false;
};

}  // namespace outrider::budget
