// Mutated inputs for loaders: files that are almost right.
#pragma once

#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>

namespace outrider::test {

/// One to four changes of a file; a pure function of (input, n).
class Mutator {
public:
    Mutator(std::string input, std::int64_t n, const std::vector<std::string>& words)
        : text_(std::move(input)), key_(20240607, 0, n), words_(words) {
        const std::uint64_t changes = 1 + next() % 4;
        for (std::uint64_t i = 0; i < changes && !text_.empty(); ++i) change();
    }

    [[nodiscard]] const std::string& text() const { return text_; }

private:
    std::uint64_t next() { return key_.bits(drawn_++); }
    std::size_t place() { return static_cast<std::size_t>(next() % text_.size()); }

    void change() {
        const std::size_t at = place();
        const std::size_t length = std::min<std::size_t>(1 + next() % 16, text_.size() - at);
        switch (next() % 9) {
            case 0: text_[at] = static_cast<char>(text_[at] ^ (1 << next() % 8)); break;
            case 1: text_[at] = static_cast<char>(next()); break;
            case 2: number<std::uint32_t>(at); break;
            case 3: number<std::uint64_t>(at); break;
            case 4: text_.resize(at); break;
            case 5: text_.erase(at, length); break;
            case 6: text_.insert(place(), text_.substr(at, length)); break;
            case 7: text_.replace(at, length, words_[next() % words_.size()]); break;
            default: text_.insert(at, words_[next() % words_.size()]); break;
        }
    }

    /// An integer that tends to overflow something.
    template <typename T>
    void number(std::size_t at) {
        if (at + sizeof(T) > text_.size()) return;
        const T shifted = static_cast<T>(T{1} << next() % (8 * sizeof(T)));
        const T choices[] = {T{0},
                             static_cast<T>(~T{0}),
                             shifted,
                             static_cast<T>(shifted - 1),
                             static_cast<T>(~shifted),
                             static_cast<T>(next() % 64)};
        const T value = choices[next() % std::size(choices)];
        std::copy_n(reinterpret_cast<const char*>(&value), sizeof(T), text_.begin() + static_cast<std::ptrdiff_t>(at));
    }

    std::string text_;
    RandomKey key_;
    const std::vector<std::string>& words_;
    std::uint64_t drawn_ = 0;
};

inline const std::vector<std::string> kJsonWords = {"{",
                                                    "}",
                                                    "[",
                                                    "]",
                                                    ",",
                                                    ":",
                                                    "\"",
                                                    "null",
                                                    "true",
                                                    "-1",
                                                    "0",
                                                    "1e999",
                                                    "18446744073709551615",
                                                    "9223372036854775808",
                                                    "4611686018427387904",
                                                    "0.5",
                                                    "\\u0000",
                                                    "\\ud800",
                                                    "\xFF",
                                                    "\"F32\"",
                                                    "\"shape\":",
                                                    "[[[[[[[[",
                                                    "{\"a\":",
                                                    "\"\""};

/// How many inputs each loader gets: the environment's OUTRIDER_FUZZ_INPUTS, else ten thousand.
inline std::int64_t fuzz_inputs() {
    const char* set = std::getenv("OUTRIDER_FUZZ_INPUTS");
    return set != nullptr ? std::atoll(set) : 10'000;
}
/// The number of the first one: OUTRIDER_FUZZ_FIRST, else 0. So a long run can be done in parts.
inline std::int64_t fuzz_first() {
    const char* set = std::getenv("OUTRIDER_FUZZ_FIRST");
    return set != nullptr ? std::atoll(set) : 0;
}

/// Runs `load` on `count` mutations of `input`. It must throw nothing but Error, and both outcomes must occur.
inline void fuzz(const std::string& input, const std::vector<std::string>& words,
                 const std::function<void(const std::string&)>& load, std::int64_t count = fuzz_inputs()) {
    REQUIRE_NOTHROW(load(input));
    std::int64_t good = 0, bad = 0;
    for (std::int64_t n = fuzz_first(); n < fuzz_first() + count; ++n) {
        const Mutator mutated(input, n, words);
        try {
            load(mutated.text());
            ++good;
        } catch (const Error&) {
            ++bad;
        } catch (const std::exception& other) {
            FAIL("input " << n << ": " << other.what());
        }
    }
    CHECK(good > count / 1000);
    CHECK(bad > count / 5);
}

}  // namespace outrider::test
