// Rows of a batch shared out among the drafter's team of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <outrider/target/target_head.hpp>
#include <outrider/core/detail/thread_team.hpp>

namespace outrider {

/// The threads of a drafter: the target's own, which need not be woken again, where as many are asked for.
[[nodiscard]] inline std::shared_ptr<ThreadTeam> drafting_team(const TargetHead& head, int threads) {
    if (head.team != nullptr && (threads == 0 || threads == head.team->size())) return head.team;
    return std::make_shared<ThreadTeam>(threads);
}

/// body(i) for every i below `count`, each once, by the members of the team; without one, or for a single row, by the
/// calling thread. Bodies must not depend on each other.
template <typename F>
void for_each_row(ThreadTeam* team, std::size_t count, F&& body) {
    if (team == nullptr || team->size() == 1 || count < 2) {
        for (std::size_t i = 0; i < count; ++i) body(i);
        return;
    }
    team->run([&](TeamMember& member) {
        const TeamMember::Range mine = member.range(static_cast<std::int64_t>(count));
        for (std::int64_t i = mine.begin; i < mine.end; ++i) body(static_cast<std::size_t>(i));
    });
}

}  // namespace outrider
