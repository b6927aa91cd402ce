// Where a sequence's tokens go while it is decoded: a host's callback, or nowhere.
#pragma once

#include <concepts>
#include <functional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

#include <outrider/core/logprobs.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// One token as it is emitted.
struct EmittedToken {
    SequenceId sequence = 0;
    TokenId token = kNoToken;
    std::string_view
        text;  ///< what became certain with it: whole UTF-8 characters, may be empty; valid during the call
    const TokenLogprobs* logprobs = nullptr;  ///< where GenerationOptions::logprobs asks for them; valid as long
};

/// Wraps a callback that takes an EmittedToken, a text (`std::string_view`) or ids (`std::span<const TokenId>`), and
/// returns nothing or whether to go on: false ends the sequence. Called once for each emitted token, in order (on text
/// alone only when there is new text), so a text that a callback ends is the same whatever was drafted. A callable that
/// takes several of these is called with the first of them.
class Sink {
public:
    Sink() = default;

    template <typename F>
        requires(!std::same_as<std::remove_cvref_t<F>, Sink> &&
                 (std::invocable<F&, const EmittedToken&> || std::invocable<F&, std::string_view> ||
                  std::invocable<F&, std::span<const TokenId>>))
    Sink(F&& callback) {  // NOLINT: implicit on purpose, a lambda is a sink
        using Callback = std::decay_t<F>;
        if constexpr (std::is_pointer_v<std::remove_cvref_t<F>>) {
            if (callback == nullptr) return;
        } else if constexpr (requires { callback.operator bool(); }) {
            if (!callback) return;  // an empty std::function
        }
        wants_text_ = !std::invocable<F&, const EmittedToken&> && std::invocable<F&, std::string_view>;
        on_token_ = [callback = Callback(std::forward<F>(callback))](const EmittedToken& emission) mutable {
            if constexpr (std::invocable<F&, const EmittedToken&>)
                return goes_on([&]() -> decltype(auto) { return callback(emission); });
            else if constexpr (std::invocable<F&, std::string_view>)
                return emission.text.empty() || goes_on([&]() -> decltype(auto) { return callback(emission.text); });
            else
                return goes_on(
                    [&]() -> decltype(auto) { return callback(std::span<const TokenId>(&emission.token, 1)); });
        };
    }

    /// Whether it takes text alone, so that a prompt without a Detokenizer would leave it idle.
    [[nodiscard]] bool wants_text() const noexcept { return wants_text_; }

    /// False: stop.
    bool operator()(const EmittedToken& emission) { return !on_token_ || on_token_(emission); }

private:
    template <typename Call>
    static bool goes_on(Call&& call) {
        if constexpr (std::is_void_v<decltype(call())>)
            return call(), true;
        else
            return static_cast<bool>(call());
    }

    std::function<bool(const EmittedToken&)> on_token_;
    bool wants_text_ = false;
};

}  // namespace outrider
