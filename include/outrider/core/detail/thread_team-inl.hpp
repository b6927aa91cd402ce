// Bodies of thread_team.hpp.
#pragma once

#include <outrider/core/detail/thread_team.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/option_ranges.hpp>

#include <outrider/core/detail/bodies.hpp>
#include <outrider/core/detail/cores.hpp>
#include <outrider/core/detail/crew.hpp>
#include <outrider/core/detail/patience.hpp>

namespace outrider {
namespace detail::team {

inline constexpr int kIdleSpins = 5000;    // some 70 to 160 us: what a round samples in between finds its threads awake
inline constexpr int kBarrierYields = 64;  // then let whoever took that core finish, and sleep at last
inline constexpr double kLate = 1e-4;      // seconds: who comes later than that had lost its core

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Whether `value` differs from `old` within so many looks.
OUTRIDER_INLINE bool spin(const std::atomic<std::int32_t>& value, std::int32_t old, int spins) {
    for (int i = 0; i < spins; ++i) {
        if (value.load(std::memory_order_acquire) != old) return true;
        relax();
    }
    return false;
}

// Lets others have the core, and sleeps at last, until `value` differs from `old`.
OUTRIDER_INLINE void sleep_until_changed(const std::atomic<std::int32_t>& value, std::int32_t old, int yields) {
    for (int i = 0; i < yields; ++i) {
        if (value.load(std::memory_order_acquire) != old) return;
        std::this_thread::yield();
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

/// Seconds that a late member was waited for.
OUTRIDER_INLINE double wait_at_barrier(const std::atomic<std::int32_t>& value, std::int32_t old) {
    thread_local Patience patience;
    const bool soon = spin(value, old, patience.next());
    patience.learn(soon);
    if (soon) return 0;
    const double start = now_seconds();
    sleep_until_changed(value, old, kBarrierYields);
    const double waited = now_seconds() - start;
    return waited > kLate ? waited : 0;
}

struct TeamAborted {};  // unwinds the members that wait for one that threw

}  // namespace detail::team

struct ThreadTeam::State {
    alignas(64) std::atomic<std::int32_t> epoch{0};     // a new value starts a run; see begin()
    alignas(64) std::atomic<std::int32_t> finished{0};  // runs finished by the workers, a new value when all have
    alignas(64) std::atomic<std::int32_t> running{0};   // workers still inside the run
    alignas(64) std::atomic<std::int32_t> arrived{0};   // members at the barrier
    alignas(64) std::atomic<std::int32_t> phase{0};     // a new value opens the barrier
    alignas(64) std::atomic<bool> aborted{false};
    alignas(64) std::atomic<std::int64_t> late{0};  // nanoseconds that members waited for late ones in this run
    Body body = nullptr;
    void* argument = nullptr;
    std::exception_ptr error;  // guarded by error_mutex
    std::mutex error_mutex, run_mutex;
    std::vector<std::thread> workers;
    int size = 1;
    int members = 1;                   // of the run; read by those that take part alone
    std::optional<detail::Crew> crew;  // where the number of threads was left to the team

    static constexpr std::int32_t kStop = 2047;  // no number of members
    static std::int32_t members_of(std::int32_t epoch) { return epoch & kStop; }

    /// Wakes the workers. The number of members is a part of the epoch: a worker that is not among them may look at it
    /// when the run is over already, and the next one has begun.
    void begin(std::int32_t count) {
        const auto runs = static_cast<std::uint32_t>(epoch.load(std::memory_order_relaxed)) / 2048 + 1;
        epoch.store(static_cast<std::int32_t>(runs * 2048 + static_cast<std::uint32_t>(count)),
                    std::memory_order_release);
        epoch.notify_all();
    }

    void wait(const std::atomic<std::int32_t>& value, std::int32_t old) {
        if (const double seconds = detail::team::wait_at_barrier(value, old); seconds > 0)
            late.fetch_add(static_cast<std::int64_t>(1e9 * seconds), std::memory_order_relaxed);
    }

    void barrier() {
        if (aborted.load(std::memory_order_acquire)) throw detail::team::TeamAborted{};
        const std::int32_t now = phase.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
            arrived.store(0, std::memory_order_relaxed);
            phase.fetch_add(1, std::memory_order_acq_rel);
            phase.notify_all();
        } else {
            wait(phase, now);
        }
        if (aborted.load(std::memory_order_acquire)) throw detail::team::TeamAborted{};
    }

    void call(int index) {
        TeamMember member(this, index, members);
        try {
            body(argument, member);
        } catch (const detail::team::TeamAborted&) {
        } catch (...) {
            const std::lock_guard lock(error_mutex);
            if (!error) error = std::current_exception();
            aborted.store(true, std::memory_order_release);
            phase.fetch_add(1, std::memory_order_acq_rel);
            phase.notify_all();
        }
    }

    void work(int index);

    /// Ends the workers that there are.
    void stop() {
        begin(kStop);
        for (std::thread& worker : workers) worker.join();
        workers.clear();
    }
};

namespace detail::team {
inline thread_local const void* current_team = nullptr;  // the team whose run this thread is in
}

OUTRIDER_INLINE void ThreadTeam::State::work(int index) {
    detail::team::current_team = this;
    for (std::int32_t seen = 0;;) {
        if (!detail::team::spin(epoch, seen, detail::team::kIdleSpins))
            detail::team::sleep_until_changed(epoch, seen, 0);
        seen = epoch.load(std::memory_order_acquire);
        if (members_of(seen) == kStop) return;
        if (index >= members_of(seen)) continue;
        call(index);
        if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) {
            finished.fetch_add(1, std::memory_order_acq_rel);
            finished.notify_all();
        }
    }
}

OUTRIDER_INLINE void TeamMember::barrier() {
    if (team_ != nullptr && size_ > 1) static_cast<ThreadTeam::State*>(team_)->barrier();
}

OUTRIDER_INLINE ThreadTeam::ThreadTeam(int threads) : state_(std::make_unique<State>()) {
    require_in(ranges::kThreads, threads, "ThreadTeam", "the number of threads");
    state_->size = threads == 0 ? physical_cores() : threads;
    if (threads == 0) state_->crew.emplace(state_->size);
    state_->workers.reserve(static_cast<std::size_t>(state_->size - 1));
    try {
        for (int i = 1; i < state_->size; ++i)
            state_->workers.emplace_back([state = state_.get(), i] { state->work(i); });
    } catch (const std::exception& error) {
        const std::size_t started = state_->workers.size() + 1;
        state_->stop();  // a thread that can be joined may not be destroyed
        fail(ErrorKind::out_of_memory,
             "ThreadTeam: the system started {} of {} threads ({}); ask for fewer, or raise its limit of threads or "
             "memory",
             started, state_->size, error.what());
    }
}

OUTRIDER_INLINE ThreadTeam::~ThreadTeam() { state_->stop(); }

OUTRIDER_INLINE int ThreadTeam::size() const noexcept { return state_->size; }

OUTRIDER_INLINE void ThreadTeam::run_erased(Body body, void* argument) {
    State& s = *state_;
    require(detail::team::current_team != &s,
            "ThreadTeam: run called from inside a run of the same team; pass the TeamMember down");
    const std::lock_guard lock(s.run_mutex);
    const void* outer = std::exchange(detail::team::current_team, &s);
    s.body = body, s.argument = argument;
    s.error = nullptr;
    s.aborted.store(false, std::memory_order_relaxed);
    s.arrived.store(0, std::memory_order_relaxed);
    s.late.store(0, std::memory_order_relaxed);
    const std::int32_t before = s.finished.load(std::memory_order_acquire);
    s.members = s.crew ? s.crew->members() : s.size;
    const double start = s.crew ? now_seconds() : 0;
    if (s.members > 1) {
        s.running.store(s.members - 1, std::memory_order_relaxed);
        s.begin(s.members);
    }
    s.call(0);
    if (s.members > 1) s.wait(s.finished, before);
    if (s.crew) s.crew->learn(now_seconds() - start, 1e-9 * double(s.late.load(std::memory_order_relaxed)));
    detail::team::current_team = outer;
    if (s.error) std::rethrow_exception(s.error);
}

OUTRIDER_INLINE int ThreadTeam::physical_cores() { return detail::usable_cores(); }

}  // namespace outrider
