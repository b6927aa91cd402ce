// Trials, and what they may lose.
#include <catch2/catch_all.hpp>

#include <outrider/budget/detail/exploration.hpp>
#include <outrider/budget/detail/part.hpp>

using namespace outrider::budget;

TEST_CASE("a trial runs to its end once begun, and one drafter that pays goes on", "[budget]") {
    Exploration exploration;
    for (std::int64_t i = 0; i < Exploration::kTrial; ++i) {
        REQUIRE(exploration.wants(100.0, 100.0));
        exploration.asked({0.1, 0.4, i == 0 ? 8.0 : 0.0}, Verdict::fails);  // a first call that takes eight rounds
    }
    CHECK_FALSE(exploration.open());
    Exploration good;
    for (int i = 0; i < 100; ++i) {
        REQUIRE(good.wants(100.0, 100.0));
        good.pass(), good.asked({0.5, 0.3}, Verdict::pays);
    }
    CHECK(good.open());
    int rounds = 0;  // what it has gained lets it be in doubt for a while
    while (good.open() && rounds < 1000) good.asked({0.3, 0.5}, Verdict::doubtful), ++rounds;
    CHECK(rounds > 40);
    CHECK(rounds < 120);
}

TEST_CASE("a hopeless drafter is left at once", "[budget]") {
    Exploration exploration;
    REQUIRE(exploration.wants(1.0, 0.0));
    exploration.asked({0.0, 2.0}, Verdict::hopeless);
    CHECK_FALSE(exploration.open());
}

TEST_CASE("a drafter that does not pay is tried again, ever more seldom, for a hundredth of all time", "[budget]") {
    for (const double loss : {0.05, 0.3, 1.0}) {
        Exploration exploration;
        double lost = 0;
        std::int64_t asked = 0, trials = 0;
        const int rounds = 20000;
        for (int i = 0; i < rounds; ++i) {
            exploration.pass();
            const bool before = exploration.open();
            if (!exploration.wants(Exploration::kTrial * loss, 0.5)) continue;
            trials += before ? 0 : 1, ++asked;
            exploration.asked({0.0, loss, before ? 0.0 : 0.5}, Verdict::fails);
            lost += loss + (before ? 0.0 : 0.5);
        }
        CAPTURE(loss, lost, asked, trials);
        CHECK(trials > 20);
        CHECK(lost < 0.021 * rounds + 20);
        CHECK(asked >= trials);
    }
}

TEST_CASE("a part of a merged drafter is asked where it adds more than it costs", "[budget]") {
    Part part;
    const auto round = [&](double before, double adds, double seconds) {
        part.round(1, 1.0);
        if (!part.ask(before, 1, 100.0)) return false;
        part.took(1, 1, seconds, 100.0);
        part.added(before, adds);
        return true;
    };
    for (int i = 0; i < 60; ++i) (void)(i % 2 == 0 ? round(0.0, 0.8, 2e-3) : round(2.0, 0.05, 2e-3));
    int much = 0, little = 0;
    for (int i = 0; i < 200; ++i) much += round(0.0, 0.8, 2e-3) ? 1 : 0, little += round(2.0, 0.05, 2e-3) ? 1 : 0;
    CHECK(much == 200);
    CHECK(little > 0);  // looks
    CHECK(little < 20);
    int later = 0;  // it comes to pay there as well
    for (int i = 0; i < 600; ++i) later += round(2.0, 1.5, 2e-3) ? 1 : 0;
    CHECK(later > 300);
}

TEST_CASE("a part that pays nowhere loses little, whatever its first call takes", "[budget]") {
    Part part;
    double lost = 0;
    int asked = 0;
    for (int i = 0; i < 5000; ++i) {
        part.round(1, 1.0);
        if (!part.ask(0.4, 1 + (asked == 0 ? 60 : 0), 300.0)) continue;
        const double seconds = asked++ == 0 ? 13e-3 : 1.3e-3;
        part.took(1, asked == 1 ? 61 : 1, seconds, 300.0);
        part.added(0.4, 0.01);
        lost += 300.0 * seconds - 0.01;
    }
    CHECK(asked > 30);
    CHECK(lost < 0.03 * 5000);
}

TEST_CASE("a batch tries a part with an eighth of its sequences", "[budget]") {
    Part part;
    part.round(32, 1.0);
    int asked = 0;
    for (int i = 0; i < 32; ++i) asked += part.ask(0.0, 1, 10.0) ? 1 : 0;
    CHECK(asked == 4);
}
