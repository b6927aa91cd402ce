// The bodies of the room, compiled once.
#include <outrider/core/detail/thinking_budget-inl.hpp>
#include <outrider/core/detail/thread_team-inl.hpp>
