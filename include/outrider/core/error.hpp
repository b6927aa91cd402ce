// The two kinds of failure: a caller's error throws outrider::Error, a broken invariant is a debug check.
#pragma once

#include <fmt/format.h>

#include <cassert>
#include <stdexcept>
#include <string>
#include <utility>

namespace outrider {

/// Thrown for every error that a caller can cause. The text says what was expected, what came, and the remedy.
class Error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
    throw Error(fmt::format(text, std::forward<Args>(args)...));
}

/// Throws Error with a formatted message unless `condition` holds. The arguments are formatted only on failure.
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> text, Args&&... args) {
    if (!condition) [[unlikely]] fail(text, std::forward<Args>(args)...);
}

}  // namespace outrider

/// A broken invariant of the library itself, checked in debug builds only.
#define OUTRIDER_ASSERT(condition) assert(condition)
