// A number that threads wait for to change: spinning, and asleep.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#endif

namespace outrider::detail {

/// As std::atomic with wait and notify. Those of libstdc++ give the core away some times before they sleep
/// (sched_yield), and beside other work a thread that does so is behind it for a whole slice of time, milliseconds,
/// even where what it waits for comes at once. One that sleeps keeps its claim, and runs soon after it is woken.
class Signal {
public:
    [[nodiscard]] std::int32_t value() const noexcept { return value_.load(std::memory_order_acquire); }

    /// Wakes those that wait for another value.
    void set(std::int32_t value) noexcept {
        value_.store(value, std::memory_order_seq_cst);
        wake();
    }
    void advance(std::int32_t by) noexcept {
        value_.fetch_add(by, std::memory_order_seq_cst);
        wake();
    }

    /// Whether the value differs from `old` within so many looks.
    [[nodiscard]] bool spin(std::int32_t old, int looks) const noexcept {
        for (int i = 0; i < looks; ++i) {
            if (value() != old) return true;
            relax();
        }
        return false;
    }

    /// Until the value differs from `old`.
    void sleep(std::int32_t old) noexcept {
#if defined(__linux__)
        // Either wake() sees this sleeper, or the sleeper sees the value that was set before.
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        while (value_.load(std::memory_order_seq_cst) == old)
            syscall(SYS_futex, address(), FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
#else
        while (value() == old) value_.wait(old, std::memory_order_acquire);
#endif
    }

private:
    static void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    void wake() noexcept {
#if defined(__linux__)
        if (sleepers_.load(std::memory_order_seq_cst) > 0)
            syscall(SYS_futex, address(), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
        value_.notify_all();
#endif
    }

#if defined(__linux__)
    static_assert(sizeof(std::atomic<std::int32_t>) == sizeof(std::int32_t));  // what the kernel looks at
    void* address() noexcept { return &value_; }
    alignas(64) std::atomic<std::int32_t> value_{0};
    std::atomic<std::int32_t> sleepers_{0};
#else
    alignas(64) std::atomic<std::int32_t> value_{0};
#endif
};

}  // namespace outrider::detail
