// Texts with places for values, "expected {} rows, got {}", whose count of places is checked when they are compiled.
// The public headers write their errors with it, so that no project needs a formatting library, or one version of it,
// to include them.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace outrider::detail {

inline void append_value(std::string& text, std::string_view value) { text += value; }
inline void append_value(std::string& text, char value) { text += value; }
inline void append_value(std::string& text, std::same_as<bool> auto value) { text += value ? "true" : "false"; }

/// In decimal; floating-point numbers with as many digits as tell them from their neighbours.
template <typename Number>
    requires((std::integral<Number> && !std::same_as<Number, bool> && !std::same_as<Number, char>) ||
             std::floating_point<Number>)
void append_value(std::string& text, Number value) {
    char digits[64];  // the shortest form of a long double has fewer
    if constexpr (std::floating_point<Number>) {
        const Number size = value < 0 ? -value : value;
        if (size >= Number(1e-4) && size < Number(1e15)) {  // without an exponent, as people write such numbers
            text.append(digits, std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed).ptr);
            return;
        }
    }
    text.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

/// Called where a text and its values do not fit, and not constexpr: the compiler's message shows its argument.
inline void does_not_compile(const char*) {}

/// A text with one {} for each of Args. {{ and }} stand for single braces; there are no other codes.
template <typename... Args>
class Message {
public:
    template <std::convertible_to<std::string_view> Text>
    consteval Message(const Text& text) : text_(text) {  // NOLINT(google-explicit-constructor)
        std::size_t places = 0;
        for (std::size_t i = 0; i < text_.size(); ++i) {
            if (text_[i] != '{' && text_[i] != '}') continue;
            const char next = i + 1 < text_.size() ? text_[i + 1] : '\0';
            if (text_[i] == '{' && next == '}')
                ++places;
            else if (next != text_[i])
                does_not_compile("a brace is alone: write {} for a value, {{ and }} for the braces themselves");
            ++i;
        }
        if (places != sizeof...(Args)) does_not_compile("the text has another number of {} than there are values");
    }

    [[nodiscard]] std::string_view text() const noexcept { return text_; }

private:
    std::string_view text_;
};

/// Appends what stands before the next place, and takes it and the place from `rest`.
inline void append_until_place(std::string& result, std::string_view& rest) {
    while (!rest.empty()) {
        const std::size_t brace = rest.find_first_of("{}");
        result += rest.substr(0, brace);
        if (brace == std::string_view::npos) {
            rest = {};
            return;
        }
        const bool place = rest[brace] == '{' && rest[brace + 1] == '}';
        if (!place) result += rest[brace];
        rest.remove_prefix(brace + 2);
        if (place) return;
    }
}

/// The text with the values in their places.
template <typename... Args>
[[nodiscard]] std::string written(Message<std::type_identity_t<Args>...> message, const Args&... args) {
    std::string result;
    std::string_view rest = message.text();
    ((append_until_place(result, rest), append_value(result, args)), ...);
    append_until_place(result, rest);
    return result;
}

/// The values of a range, "1, 2, 3".
[[nodiscard]] std::string listed(const auto& values, std::string_view between = ", ") {
    std::string result;
    bool first = true;
    for (const auto& value : values) {
        if (!first) result += between;
        append_value(result, value);
        first = false;
    }
    return result;
}

}  // namespace outrider::detail
