// When a drafter is asked that is not known to pay, and how much finding out may lose.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace outrider::budget {

/// What the rounds so far say of a drafter.
enum class Verdict : unsigned char {
    pays,      ///< rounds to come are expected to gain
    doubtful,  ///< they lose, but not much of what the drafter costs
    fails,
    hopeless,  ///< not even what the drafter states itself would pay, or luck would explain
};

/// What may be lost in finding out, in plain rounds: a little at the start, and a share of all time.
class Account {
public:
    Account(double first, double most) : balance_(first), most_(most) {}

    void earn(double rounds) { balance_ = std::min(balance_ + rounds, most_); }
    void pay(double rounds, double deepest = 0) { balance_ = std::max(balance_ - rounds, -deepest); }
    [[nodiscard]] double balance() const noexcept { return balance_; }

private:
    double balance_, most_;
};

/// What came of a round in which a drafter was asked, in tokens of all its sequences together.
struct Asked {
    double kept = 0;       ///< or expected to be, where nothing was verified yet
    double cost = 0;       ///< what plain decoding makes in the time of a steady call and of verifying
    double once = 0;       ///< the same for what comes once: a first call, catching up
    double sequences = 1;  ///< of the round
};

/// A drafter begins with a trial of some rounds, which runs to its end once begun: a single round says little. After it
/// the drafter is asked while it pays or may, and no longer once it is far from paying even if it had been unlucky, and
/// else tried again from time to time, the next trial twice as far away when nothing came of one. Two accounts bound
/// what that loses: one of steady calls, one of what comes once. Each gets a hundredth of all time; what drafting gains
/// goes into the first, up to a few rounds. Every drafter, and every part of a merged one, has its own.
class Exploration {
public:
    static constexpr std::int64_t kTrial = 10;  ///< rounds
    static constexpr double kShare = 0.01;      ///< of all time

    /// A round went by, in which plain decoding would have made `rounds` of its own.
    void pass(double rounds = 1) {
        ++rested_;
        early_ *= 1 - std::min(rounds, 10.0) / kEarlyRounds;
        steady_.earn((kShare + early_) * rounds), once_.earn((kShare + early_) * rounds);
    }

    /// Whether the drafter is to be asked now. `price`: plain rounds that a trial is expected to lose on steady calls;
    /// `once`: what its first call takes beside, for catching up.
    [[nodiscard]] bool wants(double price, double once) {
        if (open()) return true;
        const double again = double(kTrial) * (cost_ - kept_) / rounds_;
        if (rested_ < interval_ || steady_.balance() < std::min(std::max(price, again), kEnough) ||
            once_.balance() < std::min(once, kEnoughOnce))
            return false;
        trial_ = kTrial, rested_ = 0, kept_ = cost_ = 0, rounds_ = 1;
        return true;
    }

    void asked(const Asked& round, Verdict verdict) {
        steady_.pay((round.cost - round.kept) / round.sequences, kMostDoubt);
        once_.pay(round.once / round.sequences, kMostOwed);
        kept_ = kFade * kept_ + round.kept, cost_ = kFade * cost_ + round.cost;
        rounds_ = kFade * rounds_ + round.sequences;
        if (most_likely_to_keep() < cost_) verdict = Verdict::hopeless;
        if (trial_ > 0) --trial_;
        const bool in_debt = steady_.balance() <= -kMostDebt;
        if (verdict == Verdict::hopeless || in_debt) trial_ = 0;
        const double needed = verdict == Verdict::doubtful ? -kMostDoubt : 0.0;
        open_ = (verdict == Verdict::pays && !in_debt) || (verdict != Verdict::hopeless && steady_.balance() > needed);
        if (verdict == Verdict::pays) interval_ = kFirstInterval;
        if (open()) return;
        interval_ = std::min(2 * interval_, kLongestInterval), rested_ = 0;
    }

    [[nodiscard]] bool open() const noexcept { return open_ || trial_ > 0; }

private:
    static constexpr std::int64_t kFirstInterval = 24, kLongestInterval = 256;  ///< rounds
    static constexpr double kFade = 0.975;  ///< weight of the past from one asking to the next
    static constexpr double kEarlyShare = 0.02, kEarlyRounds = 400;
    static constexpr double kEnough = 4, kMostDebt = 4, kMostDoubt = 10, kEnoughOnce = 3,
                            kMostOwed = 8;  ///< plain rounds

    /// What would have been kept lately, had that been as unlucky as one in ten: the upper end for a Poisson number.
    [[nodiscard]] double most_likely_to_keep() const { return kept_ + 1.3 * std::sqrt(kept_ + 1) + 1; }

    Account steady_{2, 6}, once_{3, 4};
    double early_ = kEarlyShare, kept_ = 0, cost_ = 0, rounds_ = 1;  ///< fading, since the trial began
    std::int64_t trial_ = kTrial, rested_ = 0, interval_ = kFirstInterval;
    bool open_ = false;
};

}  // namespace outrider::budget
