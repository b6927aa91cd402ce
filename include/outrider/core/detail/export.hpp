// What a shared library of ours, or a shared library that links our archive, shows to others. Everything is compiled
// with hidden visibility; OUTRIDER_API stands before each public class and function whose body is compiled, and before
// what is thrown. Templates and inline functions need none.
#pragma once

#define OUTRIDER_API __attribute__((visibility("default")))
