// Hidden tests, run by CMakeLists.txt with the environment set.
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#if defined(__linux__)
#include <csignal>
#endif

#include <outrider/core/detail/vector_level.hpp>
#include <outrider/core/error.hpp>
#include "kernels/isa.hpp"

using namespace outrider;

namespace {

bool has_amx() {
    const auto there = available_isas();
    return std::find(there.begin(), there.end(), Isa::amx) != there.end();
}

}  // namespace

TEST_CASE("OUTRIDER_ISA chooses the path", "[.][chosen]") {
    REQUIRE(std::getenv("OUTRIDER_ISA") != nullptr);
    if (std::getenv("OUTRIDER_ISA") == std::string_view("scalar"))  // asked first by a loop
        CHECK(detail::vector_level() == detail::VectorLevel::portable);
    CHECK(name(active_isa()) == std::getenv("OUTRIDER_ISA"));
}

TEST_CASE("loops that the compiler makes vectors of follow the path") {
    using detail::VectorLevel;
    const IsaGuard guard;
    for (const Isa isa : available_isas()) {
        if (isa == Isa::amx) continue;  // the system may refuse it
        force_isa(isa);
        const VectorLevel wanted = isa == Isa::scalar || isa == Isa::neon ? VectorLevel::portable
                                   : isa == Isa::avx2                     ? VectorLevel::v3
                                                                          : VectorLevel::v4;
        CHECK(detail::vector_level() == std::min(wanted, detail::best_vector_level()));
    }
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

TEST_CASE("OUTRIDER_ISA=amx takes the tiles", "[.][amx_chosen]") {
    if (!has_amx()) SKIP("this machine has no AMX: nothing tested");
    CHECK(active_isa() == Isa::amx);
    CHECK(has_amx());
}

#if defined(__linux__)
TEST_CASE("where Linux refuses the tiles the fastest path is another, and amx is gone from the list",
          "[.][amx_refused]") {
    if (!has_amx()) SKIP("this machine has no AMX: nothing tested");
    // A signal stack that could not hold the larger state: Linux refuses it as long as the stack is there.
    std::array<char, 4096> small{};
    stack_t before{}, stack{};
    stack.ss_sp = small.data(), stack.ss_size = small.size();
    REQUIRE(sigaltstack(&stack, &before) == 0);
    const Isa taken = active_isa();
    sigaltstack(&before, nullptr);
    CHECK(taken == Isa::bf16);
    CHECK_FALSE(has_amx());
    CHECK_THROWS_AS(force_isa(Isa::amx), Error);
    CHECK(active_isa() == Isa::bf16);
}
#endif
