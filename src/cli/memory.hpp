// How the program has glibc deal with freed memory. Settings of the whole process, so the program makes them and the
// library does not.
#pragma once

#include <cstdlib>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace outrider::cli {

/// While it lives, freed memory goes back to the system: for loading, whose temporaries are many times what is
/// allocated afterwards. By default glibc comes to keep blocks of up to 32 MB, and all that lies between two live ones
/// (14 MB after a model of 98 MB and a drafter were read).
class ReturnMemory {
public:
    ReturnMemory() noexcept {
#ifdef __GLIBC__
        mallopt(M_MMAP_THRESHOLD, 128 << 10);
#endif
    }
    ~ReturnMemory() {
#ifdef __GLIBC__
        mallopt(M_MMAP_THRESHOLD, 32 << 20);  // as large as glibc lets it grow by itself
        mallopt(M_TRIM_THRESHOLD, 64 << 20);
        malloc_trim(0);
#endif
    }
    ReturnMemory(const ReturnMemory&) = delete;
    ReturnMemory& operator=(const ReturnMemory&) = delete;
};

/// From now on freed memory is kept. Every step of training makes and drops the same large tensors; given back, they
/// would cost a page fault for every 4 KB, each step anew.
inline void keep_memory() noexcept {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace outrider::cli
