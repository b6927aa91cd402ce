// Replaces the program's operator new, so that a test can let the n-th allocation of a thread fail. Include it in one
// file of a program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace outrider::test {

/// Allocations of this thread that still succeed before one fails; below 0: none will.
inline thread_local std::int64_t allocations_left = -1;

}  // namespace outrider::test

#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // g++ 12 inlines one of them and not the other

void* operator new(std::size_t bytes) {
    if (outrider::test::allocations_left >= 0 && outrider::test::allocations_left-- == 0) throw std::bad_alloc();
    if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
