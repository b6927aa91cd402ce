#include <catch2/catch_test_macros.hpp>
#include <outrider/core/error.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

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

/// A text that counts how often it is read.
struct Counted {
    int* read;
    operator std::string_view() const {  // NOLINT(google-explicit-constructor)
        ++*read;
        return "seen";
    }
};

}  // namespace

TEST_CASE("fail throws Error with the values in the places of its text") {
    CHECK(message_of([] { fail("expected {} rows, got {}; cut the batch", 4, 7); }) ==
          "expected 4 rows, got 7; cut the batch");
    CHECK(message_of([] { fail("{}", "text with {} of its own"); }) == "text with {} of its own");
    CHECK_THROWS_AS(fail("x"), std::runtime_error);
}

TEST_CASE("a text takes numbers, truth values, characters and texts, and braces that are doubled") {
    using detail::written;
    CHECK(written("{}|{}|{}", std::int64_t{-9'000'000'000}, std::uint8_t{200}, std::size_t{3}) == "-9000000000|200|3");
    CHECK(written("{} {} {}", 0.1F, 2.5, -1.0) == "0.1 2.5 -1");
    CHECK(written("{}{}", true, 'c') == "truec");
    CHECK(written("{}-{}-{}", std::string("a"), std::string_view("b"), "c") == "a-b-c");
    CHECK(written("{{\"key\": {}}}", 1) == "{\"key\": 1}");
    CHECK(written("nothing to fill in") == "nothing to fill in");
    CHECK(detail::listed(std::vector<int>{1, 2, 3}) == "1, 2, 3");
    CHECK(detail::listed(std::vector<std::string>{}) == "");
}

TEST_CASE("require throws only when the condition does not hold, and writes its text only then") {
    int read = 0;
    require(true, "{}", Counted{&read});
    CHECK(read == 0);
    CHECK(message_of([&] { require(false, "value {}", Counted{&read}); }) == "value seen");
    CHECK(read == 1);
}
