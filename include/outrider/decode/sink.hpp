// Where a sequence's tokens go while it is decoded: a host's callback on text or on ids, or nowhere.
#pragma once

#include <concepts>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <outrider/core/types.hpp>

namespace outrider {

/// Wraps `bool(std::string_view text)` or `bool(std::span<const TokenId> ids)`; true means go on, false ends the
/// sequence. Called once for each emitted token, in order (a text callback only when there is new text), so a text that
/// a callback ends is the same whatever was drafted. A callable that takes both is called with text.
class Sink {
public:
    using OnText = std::function<bool(std::string_view)>;
    using OnTokens = std::function<bool(std::span<const TokenId>)>;

    Sink() = default;

    template <typename F>
        requires(!std::same_as<std::remove_cvref_t<F>, Sink> &&
                 (std::is_invocable_r_v<bool, F&, std::string_view> ||
                  std::is_invocable_r_v<bool, F&, std::span<const TokenId>>))
    Sink(F&& callback) {  // NOLINT: implicit on purpose, a lambda is a sink
        if constexpr (std::is_invocable_r_v<bool, F&, std::string_view>)
            on_text_ = std::forward<F>(callback);
        else
            on_tokens_ = std::forward<F>(callback);
    }

    [[nodiscard]] bool wants_text() const noexcept { return static_cast<bool>(on_text_); }

    /// One token and the text that became certain with it. False: stop.
    bool operator()(TokenId token, std::string_view text) {
        if (on_text_) return text.empty() || on_text_(text);
        return !on_tokens_ || on_tokens_(std::span<const TokenId>(&token, 1));
    }

private:
    OnText on_text_;
    OnTokens on_tokens_;
};

}  // namespace outrider
