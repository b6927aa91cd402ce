#include "tile_state.hpp"

#include <atomic>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace outrider::kernels {
namespace {

std::atomic<bool> asked{false};

#if defined(__x86_64__) && defined(__linux__)

// Of arch_prctl (asm/prctl.h of Linux 5.16 and later), and the state component of the tiles' data.
constexpr int kGetSupported = 0x1021, kRequest = 0x1023, kTileData = 18;

bool system_keeps_tiles() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kXsaveInUse = 1U << 27, kTilesInUse = 3U << 17;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & kXsaveInUse) == 0) return false;
    unsigned low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    unsigned long supported = 0;
    return (low & kTilesInUse) == kTilesInUse && syscall(SYS_arch_prctl, kGetSupported, &supported) == 0 &&
           (supported >> kTileData & 1U) != 0;
}

bool there() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kNeeded = 1U << 22 | 1U << 24;  // bf16 products, tiles
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kNeeded) == kNeeded && system_keeps_tiles();
}

bool request() { return syscall(SYS_arch_prctl, kRequest, kTileData) == 0; }

#else

bool there() { return false; }
bool request() { return false; }

#endif

}  // namespace

TileState request_tile_state() {
    static const TileState answer = [] {
        const TileState result = there() && request() ? TileState::granted : TileState::none;
        asked.store(true, std::memory_order_release);
        return result;
    }();
    return answer;
}

TileState tile_state() {
    if (asked.load(std::memory_order_acquire)) return request_tile_state();
    static const bool found = there();
    return found ? TileState::there : TileState::none;
}

}  // namespace outrider::kernels
