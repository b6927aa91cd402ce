// Counts the allocations of the test program, so that a test can say that a call makes none.
#pragma once

#include <cstddef>

namespace outrider::reference {

/// Calls of operator new so far. Linking allocation_count.cpp replaces the global operator.
std::size_t allocation_count();

}  // namespace outrider::reference
