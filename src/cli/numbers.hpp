// Numbers of the command line: read whole or not at all, and held to the range that the library states for them.
#pragma once

#include <charconv>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <outrider/core/detail/range.hpp>

namespace outrider::cli {

/// The number that all of `text` is in decimal notation, or nullopt: also for one that T cannot hold.
template <typename T>
[[nodiscard]] std::optional<T> read_number(std::string_view text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

/// For CLI::Option::transform: what is outside the range is wrong usage. Hands on the number written anew, since the
/// option parser reads by rules of its own (010 is eight to it).
template <typename T>
[[nodiscard]] CLI::Validator within(const Range<T>& range) {
    const auto read = [range](std::string& text) {
        const std::optional<T> value = read_number<T>(text);
        if (!value || !range.holds(*value)) return fmt::format("expected {}, got '{}'", range.words(), text);
        if constexpr (std::floating_point<T>)
            text = fmt::format("{:.17g}", *value);
        else
            text = fmt::format("{}", *value);
        return std::string();
    };
    return CLI::Validator(read, "");
}

}  // namespace outrider::cli
