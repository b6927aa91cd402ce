#pragma once

#include <cstdlib>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace outrider {

/// Gives the pages of freed memory back to the system, where the C library keeps them (glibc keeps what lies between
/// two live blocks: 14 MB after a model of 98 MB and a drafter were read). For the end of a load, whose temporaries are
/// many times what is allocated afterwards.
inline void return_free_memory() noexcept {
#if defined(__GLIBC__)
    ::malloc_trim(0);
#endif
}

}  // namespace outrider
