// Bodies of thread_team.hpp.
#pragma once

#include <outrider/core/detail/thread_team.hpp>

#include <algorithm>
#include <atomic>
#include <exception>
#include <fstream>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

#include <outrider/core/option_ranges.hpp>

#include <outrider/core/detail/bodies.hpp>
#include <outrider/core/detail/patience.hpp>

namespace outrider {
namespace detail::team {

inline constexpr int kIdleSpins = 5000;    // some 70 to 160 us: what a round samples in between finds its threads awake
inline constexpr int kBarrierYields = 64;  // then let whoever took that core finish, and sleep at last

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Returns once `value` differs from `old`; says whether spinning was enough.
OUTRIDER_INLINE bool wait_for_change(const std::atomic<std::int32_t>& value, std::int32_t old, int spins, int yields) {
    for (int i = 0; i < spins; ++i) {
        if (value.load(std::memory_order_acquire) != old) return true;
        relax();
    }
    for (int i = 0; i < yields; ++i) {
        if (value.load(std::memory_order_acquire) != old) return false;
        std::this_thread::yield();
    }
    while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
    return false;
}

OUTRIDER_INLINE void wait_at_barrier(const std::atomic<std::int32_t>& value, std::int32_t old) {
    thread_local Patience patience;
    patience.learn(wait_for_change(value, old, patience.next(), kBarrierYields));
}

struct TeamAborted {};  // unwinds the members that wait for one that threw

}  // namespace detail::team

struct ThreadTeam::State {
    alignas(64) std::atomic<std::int32_t> epoch{0};     // a new value starts a run
    alignas(64) std::atomic<std::int32_t> finished{0};  // runs finished by the workers, a new value when all have
    alignas(64) std::atomic<std::int32_t> running{0};   // workers still inside the run
    alignas(64) std::atomic<std::int32_t> arrived{0};   // members at the barrier
    alignas(64) std::atomic<std::int32_t> phase{0};     // a new value opens the barrier
    alignas(64) std::atomic<bool> aborted{false};
    bool stopping = false;  // written before an epoch, read after it
    Body body = nullptr;
    void* argument = nullptr;
    std::exception_ptr error;  // guarded by error_mutex
    std::mutex error_mutex, run_mutex;
    std::vector<std::thread> workers;
    int size = 1;

    void barrier() {
        if (aborted.load(std::memory_order_acquire)) throw detail::team::TeamAborted{};
        const std::int32_t now = phase.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            arrived.store(0, std::memory_order_relaxed);
            phase.fetch_add(1, std::memory_order_acq_rel);
            phase.notify_all();
        } else {
            detail::team::wait_at_barrier(phase, now);
        }
        if (aborted.load(std::memory_order_acquire)) throw detail::team::TeamAborted{};
    }

    void call(int index) {
        TeamMember member(this, index, size);
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
        stopping = true;
        epoch.fetch_add(1, std::memory_order_acq_rel);
        epoch.notify_all();
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
        detail::team::wait_for_change(epoch, seen, detail::team::kIdleSpins, 0);
        seen = epoch.load(std::memory_order_acquire);
        if (stopping) return;
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
    const std::int32_t before = s.finished.load(std::memory_order_acquire);
    if (s.size > 1) {
        s.running.store(s.size - 1, std::memory_order_relaxed);
        s.epoch.fetch_add(1, std::memory_order_acq_rel);
        s.epoch.notify_all();
    }
    s.call(0);
    if (s.size > 1) detail::team::wait_at_barrier(s.finished, before);
    detail::team::current_team = outer;
    if (s.error) std::rethrow_exception(s.error);
}

OUTRIDER_INLINE int ThreadTeam::physical_cores() {
#if defined(__linux__)
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
        std::set<std::pair<int, int>> cores;
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (!CPU_ISSET(cpu, &allowed)) continue;
            const std::string folder = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
            int package = 0, core = cpu;
            std::ifstream(folder + "physical_package_id") >> package;
            if (std::ifstream file(folder + "core_id"); !(file >> core)) core = cpu;
            cores.emplace(package, core);
        }
        return std::max(1, static_cast<int>(cores.size()));
    }
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace outrider
