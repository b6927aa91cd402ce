// How long a thread spins at a barrier before it lets others have its core.
#pragma once

#include <algorithm>

namespace outrider::detail {

/// Members of a team arrive within microseconds of each other unless one lost its core, and a thread that has gone to
/// sleep takes longer to wake than most waits last: so it spins. Where members share a core, spinning only keeps the
/// one that is waited for from running. One wait that spinning did not end says nothing (the machine did something else
/// for a moment); several in a row do: each halves the spins of the next wait. A wait that spinning ended doubles them.
///
/// Short spins cannot tell that long ones would do: on a virtual machine a sleeper may wake 100 us late, so that those
/// who wait for it fall asleep as well, and are late at the next barrier. So now and then one spins for as long as
/// ever, and where that ends the wait, so do the next ones: nobody sleeps, and nobody is late.
class Patience {
public:
    static constexpr int kMost = 4000;  ///< some 60 to 170 us
    static constexpr int kFewest = 20;

    /// Spins of the next wait.
    [[nodiscard]] int next() noexcept {
        longest_ = ++waits_ % kRetry == 0;
        return longest_ ? kMost : spins_;
    }

    /// Whether spinning ended it.
    void learn(bool ended) noexcept {
        misses_ = ended ? 0 : misses_ + 1;
        if (ended)
            spins_ = longest_ ? kMost : std::min(kMost, 2 * spins_);
        else if (misses_ > 1)
            spins_ = std::max(kFewest, spins_ / 2);
    }

private:
    static constexpr unsigned kRetry = 64;

    int spins_ = kMost, misses_ = 0;
    unsigned waits_ = 0;
    bool longest_ = false;
};

}  // namespace outrider::detail
