// Begin and end of code for one instruction set. Standard headers are included before, so that no inline function of
// theirs is compiled for an instruction set that the machine may lack. Internal.
#pragma once

#if defined(__clang__)
#define OUTRIDER_PRAGMA(text) _Pragma(#text)
#define OUTRIDER_TARGET_BEGIN(features) \
    OUTRIDER_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define OUTRIDER_TARGET_END _Pragma("clang attribute pop")
#define OUTRIDER_UNROLL _Pragma("unroll")
#define OUTRIDER_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#else
#define OUTRIDER_PRAGMA(text) _Pragma(#text)
#define OUTRIDER_TARGET_BEGIN(features) _Pragma("GCC push_options") OUTRIDER_PRAGMA(GCC target(features))
#define OUTRIDER_TARGET_END _Pragma("GCC pop_options")
#define OUTRIDER_UNROLL _Pragma("GCC unroll 32")
#define OUTRIDER_KEEP_LOOP _Pragma("GCC unroll 1")
#endif
#define OUTRIDER_ALWAYS_INLINE inline __attribute__((always_inline))
