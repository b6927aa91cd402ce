// Time as the library reads it.
#pragma once

#include <chrono>
#include <functional>

namespace outrider {

/// Seconds since a moment that stays the same while the program runs.
[[nodiscard]] inline double now_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What reads the time, in seconds that never go back. Parts that decide by time take one, so that a host may decide
/// otherwise and a test is no matter of how busy its machine is.
using Clock = std::function<double()>;

}  // namespace outrider
