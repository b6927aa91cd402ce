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
#include <outrider/core/detail/signal.hpp>
#include <outrider/core/detail/thread_seconds.hpp>

namespace outrider {
namespace detail::team {

inline constexpr int kIdleSpins = 5000;  // some 70 to 160 us: what a round samples in between finds its threads awake
inline constexpr double kLate = 0.5e-3;  // seconds: who comes later than that, and than it takes others to do their
                                         // part and that one's, had lost its core
inline constexpr double kForgiven = 8e-3, kForgivenShare = 0.5;  // of such waits in a run: seconds, and of its time

/// Until `signal` is another than `old`. Returns the seconds that it slept.
OUTRIDER_INLINE double wait(Signal& signal, std::int32_t old) {
    thread_local Patience patience;
    const bool soon = signal.spin(old, patience.next());
    patience.learn(soon);
    if (soon) return 0;
    const double start = now_seconds();
    signal.sleep(old);
    return now_seconds() - start;
}

struct TeamAborted {};  // unwinds the members that wait for one that threw
struct TeamLeft {};     // unwinds the member that the others go on without

}  // namespace detail::team

struct ThreadTeam::State {
    detail::Signal epoch;                              // a new value starts a run; see begin()
    detail::Signal finished;                           // a new value when all workers have finished the run
    detail::Signal phase;                              // a new value opens the barrier; see kPhase
    alignas(64) std::atomic<std::int32_t> running{0};  // workers still inside the run
    alignas(64) std::atomic<std::int32_t> arrived{0};  // members at the barrier; with it, for who comes last:
    int last = 0;                                      // who came last to the barrier
    int leaves = 0;                                    // who is to leave at the next one; 0: nobody
    alignas(64) std::atomic<bool> aborted{false};
    Body body = nullptr;
    void* argument = nullptr;
    std::exception_ptr error;  // guarded by error_mutex
    std::mutex error_mutex, run_mutex;
    std::vector<std::thread> workers;
    int size = 1;
    std::atomic<std::int64_t> runs{0};

    int members = 1;  // that begin the run

    // The first member's, where there is a crew: no line of the cache that others look at, for it is written at each
    // barrier.
    alignas(64) std::optional<detail::Crew> crew;       // where the number of threads was left to the team
    int taking_part = 1;                                // by now
    double run_began = 0, phase_began = 0, waited = 0;  // its last barrier; seconds for late ones in this run
    double work = 0, work_counted = 0;                  // see Crew::learn; up to this processor time

    // The phase counts barriers, and says in its lower part which member leaves the run there (0: none). One that
    // leaves may look at it late, when the others are at the next barrier: all that it needs must be in the one number.
    static constexpr std::int32_t kPhase = 1024;
    static std::int32_t next_phase(std::int32_t phase) {
        return static_cast<std::int32_t>((static_cast<std::uint32_t>(phase) / kPhase + 1) * kPhase);
    }

    static constexpr std::int32_t kStop = 2047;  // no number of members
    static std::int32_t members_of(std::int32_t epoch) { return epoch & kStop; }

    /// Wakes the workers. The number of members is a part of the epoch: a worker that is not among them may look at it
    /// when the run is over already, and the next one has begun.
    void begin(std::int32_t count) {
        const auto next = static_cast<std::uint32_t>(epoch.value()) / 2048 + 1;
        epoch.set(static_cast<std::int32_t>(next * 2048 + static_cast<std::uint32_t>(count)));
    }

    void count_work() {
        const double now = detail::thread_seconds();
        work += detail::Crew::scale(taking_part) * (now - work_counted);
        work_counted = now;
    }

    void barrier(int& index, int& count);
    void await_others(std::int32_t before);
    void call(int index);
    void work_as(int index);

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

OUTRIDER_INLINE void ThreadTeam::State::barrier(int& index, int& count) {
    if (aborted.load(std::memory_order_acquire)) throw detail::team::TeamAborted{};
    const std::int32_t before = phase.value();
    const bool leads = index == 0 && crew;
    const std::int32_t next = next_phase(before);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
        arrived.store(0, std::memory_order_relaxed);
        last = index;
        phase.set(next + std::exchange(leaves, 0));
    } else if (leads) {
        await_others(before);
    } else {
        (void)detail::team::wait(phase, before);
    }
    if (aborted.load(std::memory_order_acquire)) throw detail::team::TeamAborted{};
    const std::int32_t now = phase.value();
    const std::uint32_t ahead = static_cast<std::uint32_t>(now) - static_cast<std::uint32_t>(next);
    const auto left = static_cast<std::int32_t>(ahead % kPhase);
    if (ahead >= kPhase || (left > 0 && left == index)) throw detail::team::TeamLeft{};
    if (left > 0) {
        if (leads) count_work(), --taking_part;
        if (index == --count) index = left;
    }
    if (leads) phase_began = now_seconds();
}

/// The first member's wait at a barrier. Beside other work, one that has lost its core is waited for as long as that
/// other work's slice of time lasts. It has its core then, and is likely to keep it for a while; but where most of the
/// run is waiting, it goes on without it.
OUTRIDER_INLINE void ThreadTeam::State::await_others(std::int32_t before) {
    const double slept = detail::team::wait(phase, before);
    if (slept < detail::team::kLate) return;
    const double now = now_seconds();
    if (slept < now - slept - phase_began) return;
    waited += slept;
    if (phase.value() != next_phase(before)) return;  // one leaves: others are counted anew
    if (waited > detail::team::kForgiven + detail::team::kForgivenShare * (now - run_began)) leaves = last;
}

OUTRIDER_INLINE void ThreadTeam::State::call(int index) {
    TeamMember member(this, index, members);
    try {
        body(argument, member);
    } catch (const detail::team::TeamAborted&) {
    } catch (const detail::team::TeamLeft&) {
    } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        aborted.store(true, std::memory_order_release);
        phase.advance(kPhase);
    }
}

OUTRIDER_INLINE void ThreadTeam::State::work_as(int index) {
    detail::team::current_team = this;
    bool took_part = true;
    for (std::int32_t seen = 0;;) {
        if (!took_part || !epoch.spin(seen, detail::team::kIdleSpins)) epoch.sleep(seen);
        seen = epoch.value();
        if (members_of(seen) == kStop) return;
        took_part = index < members_of(seen);
        if (!took_part) continue;
        call(index);
        if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) finished.advance(1);
    }
}

OUTRIDER_INLINE void TeamMember::barrier() {
    if (team_ != nullptr && size_ > 1) static_cast<ThreadTeam::State*>(team_)->barrier(index_, size_);
}

OUTRIDER_INLINE ThreadTeam::ThreadTeam(int threads) : state_(std::make_unique<State>()) {
    require_in(ranges::kThreads, threads, "ThreadTeam", "the number of threads");
    start(threads == 0 ? physical_cores() : threads, threads == 0);
}

OUTRIDER_INLINE ThreadTeam::ThreadTeam(UpTo most) : state_(std::make_unique<State>()) {
    require_in(ranges::kThreads, most.threads, "ThreadTeam", "the most threads");
    start(std::max(most.threads, 1), true);
}

OUTRIDER_INLINE void ThreadTeam::start(int size, bool may_leave) {
    state_->size = size;
    if (may_leave) state_->crew.emplace(size);
    state_->workers.reserve(static_cast<std::size_t>(state_->size - 1));
    try {
        for (int i = 1; i < state_->size; ++i)
            state_->workers.emplace_back([state = state_.get(), i] { state->work_as(i); });
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

OUTRIDER_INLINE std::int64_t ThreadTeam::runs() const noexcept { return state_->runs.load(std::memory_order_relaxed); }

OUTRIDER_INLINE void ThreadTeam::run_erased(Body body, void* argument) {
    State& s = *state_;
    require(detail::team::current_team != &s,
            "ThreadTeam: run called from inside a run of the same team; pass the TeamMember down");
    const std::lock_guard lock(s.run_mutex);
    const void* outer = std::exchange(detail::team::current_team, &s);
    s.runs.fetch_add(1, std::memory_order_relaxed);
    s.body = body, s.argument = argument;
    s.error = nullptr;
    s.aborted.store(false, std::memory_order_relaxed);
    s.arrived.store(0, std::memory_order_relaxed);
    s.leaves = 0;
    const std::int32_t before = s.finished.value();
    s.members = s.taking_part = s.crew ? s.crew->members() : s.size;
    if (s.crew) {
        s.run_began = s.phase_began = now_seconds(), s.work_counted = detail::thread_seconds();
        s.work = s.waited = 0;
    }
    if (s.members > 1) {
        s.running.store(s.members - 1, std::memory_order_relaxed);
        s.begin(s.members);
    }
    s.call(0);
    if (s.crew) s.count_work();
    if (s.members > 1) (void)detail::team::wait(s.finished, before);
    if (s.crew) s.crew->learn(now_seconds() - s.run_began, s.work);
    detail::team::current_team = outer;
    if (s.error) std::rethrow_exception(s.error);
}

OUTRIDER_INLINE int ThreadTeam::physical_cores() { return detail::usable_cores(); }

}  // namespace outrider
