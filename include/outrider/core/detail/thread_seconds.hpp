// Processor time of the thread that asks.
#pragma once

#include <ctime>

#include <outrider/core/detail/clock.hpp>

namespace outrider::detail {

/// Seconds for which this thread had a core, since some moment. Time itself where the system does not say.
[[nodiscard]] inline double thread_seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    std::timespec time{};
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0) return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
#endif
    return now_seconds();
}

}  // namespace outrider::detail
