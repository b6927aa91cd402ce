// The two kinds of failure: what a caller can cause or cure throws outrider::Error, a broken invariant is a debug check.
#pragma once

#include <fmt/format.h>

#include <cassert>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace outrider {

/// What a program can do about an error.
enum class ErrorKind : unsigned char {
    bad_request,         ///< arguments, options or calls that cannot be served: change them
    damaged_file,        ///< a file that is missing, cut short or no such format: replace it
    not_supported,       ///< sound, but beyond this version: another model, another build
    mismatched_drafter,  ///< a drafter that was made for another target: take one of this target
    out_of_memory,       ///< of the host or of a device: fewer sequences, a smaller model
    internal,            ///< a failure of the library or of what it stands on: report it
};

[[nodiscard]] constexpr std::string_view to_string(ErrorKind kind) noexcept {
    switch (kind) {
        case ErrorKind::bad_request: return "bad request";
        case ErrorKind::damaged_file: return "damaged file";
        case ErrorKind::not_supported: return "not supported";
        case ErrorKind::mismatched_drafter: return "mismatched drafter";
        case ErrorKind::out_of_memory: return "out of memory";
        case ErrorKind::internal: return "internal";
    }
    return "unknown";
}

/// All that the library throws. The text says what was expected, what came, and the remedy.
class Error : public std::runtime_error {
public:
    explicit Error(const std::string& text, ErrorKind kind = ErrorKind::bad_request)
        : std::runtime_error(text), kind_(kind) {}

    [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }

private:
    ErrorKind kind_;
};

/// Throws Error with a formatted message.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, fmt::format_string<Args...> text, Args&&... args) {
    throw Error(fmt::format(text, std::forward<Args>(args)...), kind);
}
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) {
    throw Error(fmt::format(text, std::forward<Args>(args)...));
}

/// Throws Error with a formatted message unless `condition` holds. The arguments are formatted only on failure.
template <typename... Args>
void require(bool condition, ErrorKind kind, fmt::format_string<Args...> text, Args&&... args) {
    if (!condition) [[unlikely]] fail(kind, text, std::forward<Args>(args)...);
}
template <typename... Args>
void require(bool condition, fmt::format_string<Args...> text, Args&&... args) {
    if (!condition) [[unlikely]] fail(text, std::forward<Args>(args)...);
}

}  // namespace outrider

/// A broken invariant of the library itself, checked in debug builds only.
#define OUTRIDER_ASSERT(condition) assert(condition)
