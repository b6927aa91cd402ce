// Exceptions of LibTorch that arrive as an Error.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <string>
#include <utility>

#include <outrider/core/error.hpp>

namespace outrider::test {

/// `call` throws an Error that holds `said`. LibTorch's own exceptions append a trace of its functions.
template <typename Call>
void check_translated(Call&& call, const std::string& said) {
    using Catch::Matchers::ContainsSubstring;
    CHECK_THROWS_MATCHES(
        std::forward<Call>(call)(), Error,
        Catch::Matchers::MessageMatches(ContainsSubstring(said) && !ContainsSubstring("Exception raised from")));
}

}  // namespace outrider::test
