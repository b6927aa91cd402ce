// What leaves the library: Error, and what a host's own callback threw.
#include <catch2/catch_test_macros.hpp>
#include <outrider/core/detail/translate.hpp>

#include <new>
#include <stdexcept>
#include <string>

using namespace outrider;
using namespace outrider::detail;

namespace {

ErrorKind kind_after(auto&& body) {
    try {
        translate(body);
    } catch (const Error& error) {
        return error.kind();
    }
    FAIL("nothing was thrown");
    return ErrorKind::internal;
}

}  // namespace

TEST_CASE("translate lets values and Errors through, and puts everything else into an Error") {
    CHECK(translate([] { return 3; }) == 3);
    CHECK(kind_after([] { fail(ErrorKind::damaged_file, "cut short"); }) == ErrorKind::damaged_file);
    CHECK(kind_after([] { throw std::bad_alloc(); }) == ErrorKind::out_of_memory);
    CHECK(kind_after([] { throw std::runtime_error("CUDA out of memory"); }) == ErrorKind::out_of_memory);
    CHECK(kind_after([] { throw std::runtime_error("shapes do not match"); }) == ErrorKind::internal);
    CHECK(kind_after([] { throw 7; }) == ErrorKind::internal);
}

TEST_CASE("what a host's callback throws is the host's, whatever lies between") {
    // As code of the library does that adds words of its own to an exception.
    const auto with_words = [](auto&& body) {
        try {
            body();
        } catch (const std::exception& error) {
            fail("in line 3: {}", error.what());
        }
    };
    const auto run = [&](auto&& callback) { translate([&] { with_words([&] { as_host(callback); }); }); };
    CHECK_NOTHROW(run([] {}));
    CHECK_THROWS_AS(run([] { throw std::logic_error("mine"); }), std::logic_error);
    CHECK_THROWS_AS(run([] { throw 7; }), int);
    CHECK(translate([] { return as_host([] { return 3; }); }) == 3);
}
