// The text of an exception that was kept.
#pragma once

#include <exception>
#include <string>

namespace outrider::detail {

/// What it says; empty where there is no memory for that.
[[nodiscard]] inline std::string words_of(const std::exception_ptr& error) noexcept {
    try {
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& known) {
            return known.what();
        } catch (...) {
            return "an exception that is not a std::exception";
        }
    } catch (...) {
        return {};
    }
}

}  // namespace outrider::detail
