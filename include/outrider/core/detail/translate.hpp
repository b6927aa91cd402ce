// Nothing but outrider::Error leaves the library: exceptions of the standard library and of LibTorch are put into its
// words.
#pragma once

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <outrider/core/error.hpp>

namespace outrider::detail {

/// The kind of an exception of LibTorch by its words: torch_cpu's types need not be known here.
[[nodiscard]] inline ErrorKind kind_of(std::string_view what) {
    for (const std::string_view sign : {"out of memory", "can't allocate memory", "not enough memory", "bad_alloc"})
        if (what.find(sign) != std::string_view::npos) return ErrorKind::out_of_memory;
    return ErrorKind::internal;
}

/// What a host's own callback threw, on its way out through translate(): it arrives as it was thrown. No
/// std::exception, so that nothing on the way takes it for a failure of the library.
struct ThrownByHost {
    std::exception_ptr error;
};

/// body(), a callback of the host's that runs inside translate().
template <typename Body>
decltype(auto) as_host(Body&& body) {
    try {
        return std::forward<Body>(body)();
    } catch (...) {
        throw ThrownByHost{std::current_exception()};
    }
}

/// `error` where it is an Error, else one that says the same. Null stays null. Exceptions that are thrown by a host's
/// own callbacks never come here: they are the host's.
[[nodiscard]] inline std::exception_ptr translated(const std::exception_ptr& error) {
    if (!error) return error;
    try {
        std::rethrow_exception(error);
    } catch (const Error&) {
        return error;
    } catch (const std::bad_alloc&) {
        return std::make_exception_ptr(
            Error("out of memory; decode fewer sequences at once, or take a smaller model", ErrorKind::out_of_memory));
    } catch (const std::exception& other) {
        const std::string_view what = other.what();
        // LibTorch appends a trace of its own functions, which tells a caller nothing.
        const std::string text(what.substr(0, std::min(what.find("\nException raised from"), what.size())));
        return std::make_exception_ptr(Error(text, kind_of(what)));
    } catch (...) {
        return std::make_exception_ptr(Error("an exception that is not a std::exception", ErrorKind::internal));
    }
}

/// body(), with what it throws translated.
template <typename Body>
decltype(auto) translate(Body&& body) {
    try {
        return std::forward<Body>(body)();
    } catch (const Error&) {
        throw;
    } catch (const ThrownByHost& host) {
        std::rethrow_exception(host.error);
    } catch (...) {
        std::rethrow_exception(translated(std::current_exception()));
    }
}

}  // namespace outrider::detail
