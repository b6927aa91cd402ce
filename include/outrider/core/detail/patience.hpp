// How long a thread spins at a barrier before it lets others have its core.
#pragma once

#include <algorithm>

namespace outrider::detail {

/// Members of a team arrive within microseconds of each other unless one lost its core, and a thread that has gone to
/// sleep takes longer to wake than most waits last: so it spins. Where members share a core, spinning only keeps the
/// one that is waited for from running. One wait that spinning did not end says nothing (the machine did something else
/// for a moment); several in a row do: each halves the spins of the next wait. A wait that spinning ended doubles them,
/// and now and then one spins for as long as ever, since short spins cannot tell that longer ones would do.
class Patience {
public:
    static constexpr int kMost = 4000;  ///< some 60 to 130 us
    static constexpr int kFewest = 20;

    /// Spins of the next wait.
    [[nodiscard]] int next() noexcept { return ++waits_ % kRetry == 0 ? kMost : spins_; }

    /// Whether spinning ended it.
    void learn(bool ended) noexcept {
        misses_ = ended ? 0 : misses_ + 1;
        if (ended)
            spins_ = std::min(kMost, 2 * spins_);
        else if (misses_ > 1)
            spins_ = std::max(kFewest, spins_ / 2);
    }

private:
    static constexpr unsigned kRetry = 64;

    int spins_ = kMost, misses_ = 0;
    unsigned waits_ = 0;
};

}  // namespace outrider::detail
