#include <catch2/catch_test_macros.hpp>
#include <outrider/core/error.hpp>

#include <string>

using namespace outrider;

namespace {

std::string message_of(auto&& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

struct Counted {
    int* formatted;
};

}  // namespace

template <>
struct fmt::formatter<Counted> : fmt::formatter<int> {
    auto format(const Counted& value, fmt::format_context& context) const {
        ++*value.formatted;
        return fmt::formatter<int>::format(*value.formatted, context);
    }
};

TEST_CASE("fail throws Error with the formatted message") {
    CHECK(message_of([] { fail("expected {} rows, got {}; cut the batch", 4, 7); }) ==
          "expected 4 rows, got 7; cut the batch");
    CHECK_THROWS_AS(fail("x"), std::runtime_error);
}

TEST_CASE("require throws only when the condition does not hold, and formats only then") {
    int formatted = 0;
    require(true, "{}", Counted{&formatted});
    CHECK(formatted == 0);
    CHECK(message_of([&] { require(false, "value {}", Counted{&formatted}); }) == "value 1");
    CHECK(formatted == 1);
}
