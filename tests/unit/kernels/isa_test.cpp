// Hidden tests, run by CMakeLists.txt with the environment set.
#include <catch2/catch_test_macros.hpp>

#include <cstdlib>

#include <outrider/core/error.hpp>
#include "kernels/isa.hpp"

using namespace outrider;

TEST_CASE("OUTRIDER_ISA chooses the path", "[.][chosen]") {
    REQUIRE(std::getenv("OUTRIDER_ISA") != nullptr);
    CHECK(name(active_isa()) == std::getenv("OUTRIDER_ISA"));
}

TEST_CASE("an OUTRIDER_ISA that names no path of this machine is an error that lists them", "[.][refused]") {
    try {
        (void)active_isa();
        FAIL("accepted");
    } catch (const Error& error) {
        const std::string_view text = error.what();
        CHECK(text.find("nonsense") != text.npos);
        CHECK(text.find("scalar") != text.npos);
    }
}
