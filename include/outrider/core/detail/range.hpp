// The values that a number may have, said once: the library refuses others, and the program's command line asks the
// same range before it loads anything.
#pragma once

#include <concepts>
#include <limits>
#include <string>
#include <string_view>

#include <outrider/core/detail/message.hpp>
#include <outrider/core/error.hpp>

namespace outrider {

enum class Bounds : unsigned char { closed, open_below, open_above };

/// Numbers from `low` to `high`. NaN lies in no range.
template <typename T>
struct Range {
    T low = std::numeric_limits<T>::lowest(), high = std::numeric_limits<T>::max();
    Bounds bounds = Bounds::closed;  ///< open_below: `low` itself is outside; open_above: `high` is
    bool or_zero = false;            ///< 0 beside

    [[nodiscard]] constexpr bool holds(T x) const noexcept {
        if (or_zero && x == T{}) return true;
        const bool above = bounds == Bounds::open_below ? x > low : x >= low;
        const bool below = bounds == Bounds::open_above ? x < high : x <= high;
        return above && below;
    }

    /// For messages: "a number above 0, at most 1", "a whole number from 0 to 1024".
    [[nodiscard]] std::string words() const {
        const std::string_view what = std::integral<T> ? "a whole number" : "a number", zero = or_zero ? "0 or " : "";
        const bool endless = high == std::numeric_limits<T>::max() || high == std::numeric_limits<T>::infinity();
        using detail::written;
        if (bounds == Bounds::open_below)
            return endless ? written<std::string_view, std::string_view, T>("{}{} above {}", zero, what, low)
                           : written<std::string_view, std::string_view, T, T>("{}{} above {}, at most {}", zero, what,
                                                                               low, high);
        if (bounds == Bounds::open_above)
            return written<std::string_view, std::string_view, T, T>("{}{} from {} to below {}", zero, what, low, high);
        return endless ? written<std::string_view, std::string_view, T>("{}{} of at least {}", zero, what, low)
                       : written<std::string_view, std::string_view, T, T>("{}{} from {} to {}", zero, what, low, high);
    }
};

/// Throws Error that names the option, unless its value lies in its range.
template <typename T>
void require_in(const Range<T>& range, T value, std::string_view where, std::string_view option) {
    if (!range.holds(value)) fail("{}: {} is {}, expected {}", where, option, value, range.words());
}

}  // namespace outrider
