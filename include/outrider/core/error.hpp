// The two kinds of failure: what a caller can cause or cure throws outrider::Error, a broken invariant is a debug
// check.
#pragma once

#include <cassert>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include <outrider/core/detail/export.hpp>
#include <outrider/core/detail/message.hpp>

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
class OUTRIDER_API Error : public std::runtime_error {
public:
    explicit Error(const std::string& text, ErrorKind kind = ErrorKind::bad_request)
        : std::runtime_error(text), kind_(kind) {}

    [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }

private:
    ErrorKind kind_;
};

/// Throws Error with `text`, where each {} stands for the next of `args`: a number, a truth value, a character or a
/// text.
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, detail::Message<std::type_identity_t<Args>...> text, const Args&... args) {
    throw Error(detail::written<Args...>(text, args...), kind);
}
template <typename... Args>
[[noreturn]] void fail(detail::Message<std::type_identity_t<Args>...> text, const Args&... args) {
    throw Error(detail::written<Args...>(text, args...));
}

/// Throws Error as `fail` does unless `condition` holds. The text is written only then.
template <typename... Args>
void require(bool condition, ErrorKind kind, detail::Message<std::type_identity_t<Args>...> text, const Args&... args) {
    if (!condition) [[unlikely]]
        fail<Args...>(kind, text, args...);
}
template <typename... Args>
void require(bool condition, detail::Message<std::type_identity_t<Args>...> text, const Args&... args) {
    if (!condition) [[unlikely]]
        fail<Args...>(text, args...);
}

}  // namespace outrider

/// A broken invariant of the library itself, checked in debug builds only.
#define OUTRIDER_ASSERT(condition) assert(condition)
