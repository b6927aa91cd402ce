// One team of threads for a whole target pass: forked once, synchronised by spin barriers inside, asleep between
// passes.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace outrider {

class ThreadTeam;

/// One thread's place in a team. A default-constructed member is a team of one: its barrier does nothing.
class TeamMember {
public:
    TeamMember() = default;

    /// Half-open range of work items.
    struct Range {
        std::int64_t begin = 0, end = 0;
        [[nodiscard]] std::int64_t size() const noexcept { return end - begin; }
    };

    [[nodiscard]] int index() const noexcept { return index_; }  ///< 0 is the thread that called run
    [[nodiscard]] int size() const noexcept { return size_; }

    /// Returns when every member of the team has called it. Writes made before are seen by all members after. Where the
    /// number of threads was left to the team, a member that came late may leave the run here (its call ends by an
    /// exception that the team takes up), and index() and size() of others may be others behind it: a range is asked
    /// for behind the barrier that its use stands behind.
    void barrier();

    /// This member's share of `count` items: contiguous, in member order, sizes that differ by at most one.
    [[nodiscard]] Range range(std::int64_t count) const noexcept {
        const std::int64_t share = count / size_, extra = count % size_;
        const std::int64_t begin = index_ * share + (index_ < extra ? index_ : extra);
        return {begin, begin + share + (index_ < extra ? 1 : 0)};
    }

private:
    friend class ThreadTeam;
    TeamMember(void* team, int index, int size) noexcept : team_(team), index_(index), size_(size) {}

    void* team_ = nullptr;
    int index_ = 0, size_ = 1;
};

/// Persistent threads that run one function together (single program, multiple data). Idle threads spin some
/// microseconds and then sleep in the kernel, so they cost nothing between passes and leave the cores to others.
class ThreadTeam {
public:
    /// The most threads of a team that takes fewer in runs while other work keeps some cores (TeamMember::size tells).
    struct UpTo {
        int threads = 1;
    };

    /// `threads` includes the calling thread; 0 takes up to as many as there are physical cores that this process may
    /// use, by its affinity and its control groups' quota.
    explicit ThreadTeam(int threads = 0);
    explicit ThreadTeam(UpTo most);
    ~ThreadTeam();
    ThreadTeam(const ThreadTeam&) = delete;
    ThreadTeam& operator=(const ThreadTeam&) = delete;

    [[nodiscard]] int size() const noexcept;

    /// That were begun so far. A team without any knows nothing of other work on its cores. From any thread.
    [[nodiscard]] std::int64_t runs() const noexcept;

    /// Calls body(TeamMember&) on every member and returns when all have returned. Calls from several threads take
    /// turns; a call from inside a run of the same team throws Error. If a member throws, the others are released from
    /// their barriers and the first exception comes out here.
    template <typename F>
    void run(F&& body) {
        run_erased([](void* f, TeamMember& member) { (*static_cast<std::remove_reference_t<F>*>(f))(member); },
                   const_cast<void*>(static_cast<const void*>(std::addressof(body))));
    }

    /// Physical cores this process may keep busy, at least 1.
    [[nodiscard]] static int physical_cores();

private:
    friend class TeamMember;
    struct State;
    using Body = void (*)(void*, TeamMember&);
    void start(int size, bool may_leave);
    void run_erased(Body body, void* argument);

    std::unique_ptr<State> state_;
};

}  // namespace outrider

#ifndef OUTRIDER_COMPILED
#include <outrider/core/detail/thread_team-inl.hpp>
#endif
