// Where the bodies of declared functions stand. A header NAME.hpp ends with
//
//     #ifndef OUTRIDER_COMPILED
//     #include <outrider/ROOM/detail/NAME-inl.hpp>
//     #endif
//
// and NAME-inl.hpp defines its functions with OUTRIDER_INLINE. A project that takes outrider::headers gets the bodies
// as inline functions; one that links outrider::outrider (which defines OUTRIDER_COMPILED) finds them compiled, once.
// One program takes one of the two.
#pragma once

#include <outrider/core/detail/export.hpp>

#ifdef OUTRIDER_COMPILED
#define OUTRIDER_INLINE OUTRIDER_API
#else
#define OUTRIDER_INLINE inline
#endif
