// One of the loop's three parts: held by value, by pointer or by reference, and timed by the arrow that calls it.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

#include <outrider/core/detail/clock.hpp>
#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

namespace detail {
template <typename T>
struct Held {
    using Type = T;
    static T& get(T& held) { return held; }
};
template <typename T>
struct Held<std::reference_wrapper<T>> {
    using Type = T;
    static T& get(std::reference_wrapper<T>& held) { return held.get(); }
};
template <typename T, typename Deleter>
struct Held<std::unique_ptr<T, Deleter>> {
    using Type = T;
    static T& get(std::unique_ptr<T, Deleter>& held) { return *held; }
};
template <typename T>
struct Held<std::shared_ptr<T>> {
    using Type = T;
    static T& get(std::shared_ptr<T>& held) { return *held; }
};
}  // namespace detail

/// The part behind `T`: T itself, or what a unique_ptr, shared_ptr or reference_wrapper points to.
template <typename T>
using HeldType = typename detail::Held<T>::Type;

/// `stage->call(...)` calls the part and adds the time until the end of that full expression to the stage's clock, so
/// that the loop itself need not mention time.
template <typename T>
class Stage {
public:
    explicit Stage(T held) : held_(std::move(held)) {
        if constexpr (requires { held_ == nullptr; })
            require(!(held_ == nullptr), "SpeculativeDecoder: a part is a null pointer; pass one that owns an object");
    }

    class TimedCall {
    public:
        TimedCall(HeldType<T>& part, double& seconds) : part_(&part), seconds_(&seconds), start_(now_seconds()) {}
        TimedCall(const TimedCall&) = delete;
        TimedCall& operator=(const TimedCall&) = delete;
        ~TimedCall() { *seconds_ += now_seconds() - start_; }
        HeldType<T>* operator->() const noexcept { return part_; }

    private:
        HeldType<T>* part_;
        double* seconds_;
        double start_;
    };

    [[nodiscard]] TimedCall operator->() { return TimedCall(part(), seconds_); }

    /// The part itself, untimed.
    [[nodiscard]] HeldType<T>& part() { return detail::Held<T>::get(held_); }

    /// Seconds since the last call of this function.
    double lap() noexcept { return std::exchange(seconds_, 0.0); }

private:
    T held_;
    double seconds_ = 0.0;
};

/// Marks a stretch of time, such as the one in which callbacks may run: true while it lives.
class Marked {
public:
    explicit Marked(bool& mark) : mark_(mark) { mark_ = true; }
    Marked(const Marked&) = delete;
    Marked& operator=(const Marked&) = delete;
    ~Marked() { mark_ = false; }

private:
    bool& mark_;
};

}  // namespace outrider
