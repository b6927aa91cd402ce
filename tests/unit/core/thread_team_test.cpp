#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/thread_team.hpp>

using namespace outrider;

TEST_CASE("every member runs once, and barriers order their writes") {
    for (const int threads : {1, 2, 3, 5}) {
        ThreadTeam team(threads);
        REQUIRE(team.size() == threads);
        std::vector<std::int64_t> cells(static_cast<std::size_t>(threads), 0);
        std::atomic<int> wrong = 0;
        for (int round = 0; round < 50; ++round) {
            team.run([&](TeamMember& member) {
                if (member.size() != threads) ++wrong;
                for (std::int64_t step = 1; step <= 20; ++step) {
                    cells[static_cast<std::size_t>(member.index())] = 100 * round + step;
                    member.barrier();
                    for (const std::int64_t cell : cells)
                        if (cell != 100 * round + step) ++wrong;
                    member.barrier();
                }
            });
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("ranges cover every item once, in order, as evenly as can be") {
    for (const int threads : {1, 2, 3, 7}) {
        for (const std::int64_t items : {0, 1, 2, 6, 7, 100}) {
            ThreadTeam team(threads);
            std::vector<TeamMember::Range> ranges(static_cast<std::size_t>(threads));
            team.run([&](TeamMember& m) { ranges[static_cast<std::size_t>(m.index())] = m.range(items); });
            std::int64_t next = 0;
            for (const auto& range : ranges) {
                CHECK(range.begin == next);
                CHECK((range.size() == items / threads || range.size() == (items + threads - 1) / threads));
                next = range.end;
            }
            CHECK(next == items);
        }
    }
}

TEST_CASE("an exception of one member comes out of run, releases the others and leaves the team usable") {
    ThreadTeam team(3);
    for (const int thrower : {0, 1, 2}) {
        const auto bad = [&](TeamMember& member) {
            member.barrier();
            if (member.index() == thrower) throw std::domain_error("expected");
            member.barrier();
            member.barrier();
        };
        CHECK_THROWS_AS(team.run(bad), std::domain_error);
        std::atomic<int> ran = 0;
        team.run([&](TeamMember& member) {
            member.barrier();
            ++ran;
            member.barrier();
        });
        CHECK(ran == 3);
    }
}

TEST_CASE("a run goes on without members that came late, and every item is done once") {
    const int size = GENERATE(2, 3, 5);
    int left = 0;
    // The members that sleep are late unless the machine keeps the first one from its core meanwhile: in one of many
    // runs at least it does not.
    for (int run = 0; run < 50 && left < 3; ++run) {
        ThreadTeam team(ThreadTeam::UpTo{size});  // a new one begins with all members
        constexpr std::int64_t kItems = 97;
        std::vector<int> done(kItems, 0);
        std::atomic<int> ended{0}, wrong{0};
        int began_with = 0, ended_with = 0;
        team.run([&](TeamMember& member) {
            const struct Ended {
                std::atomic<int>& count;
                ~Ended() { ++count; }
            } count{ended};
            const int me = member.index();
            if (me == 0) began_with = member.size();
            for (int step = 1; step <= 30; ++step) {
                if (me == 1 + step % size && step % 7 == 1) std::this_thread::sleep_for(std::chrono::milliseconds(25));
                member.barrier();
                if (member.index() >= member.size()) ++wrong;
                const TeamMember::Range mine = member.range(kItems);
                for (std::int64_t i = mine.begin; i < mine.end; ++i) ++done[static_cast<std::size_t>(i)];
                member.barrier();
                for (const int times : done)
                    if (times != step) ++wrong;
            }
            if (me == 0) ended_with = member.size();
        });
        REQUIRE(wrong == 0);
        REQUIRE(ended == began_with);
        REQUIRE(done == std::vector<int>(kItems, 30));
        left += began_with - ended_with;
        team.run([](TeamMember& member) { member.barrier(); });
    }
    CHECK(left >= 3);
}

TEST_CASE("a team of a given size waits for everybody") {
    ThreadTeam team(3);
    std::atomic<int> stayed = 0;
    team.run([&](TeamMember& member) {
        if (member.index() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        for (int i = 0; i < 3; ++i) member.barrier();
        if (member.size() == 3) ++stayed;
    });
    CHECK(stayed == 3);
}

TEST_CASE("run inside a run of the same team is an error, of another team is not") {
    ThreadTeam team(2), other(2);
    CHECK_THROWS_AS(team.run([&](TeamMember&) { team.run([](TeamMember&) {}); }), Error);
    std::atomic<int> ran = 0;
    team.run([&](TeamMember& member) {
        if (member.index() == 1) other.run([&](TeamMember&) { ++ran; });
    });
    CHECK(ran == 2);
}

TEST_CASE("several callers take turns") {
    ThreadTeam team(2);
    std::atomic<int> inside = 0, wrong = 0, calls = 0;
    std::vector<std::thread> callers;
    for (int c = 0; c < 3; ++c)
        callers.emplace_back([&] {
            for (int i = 0; i < 50; ++i)
                team.run([&](TeamMember& member) {
                    if (++inside > 2) ++wrong;
                    member.barrier();
                    ++calls;
                    --inside;
                    member.barrier();
                });
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(wrong == 0);
    CHECK(calls == 300);
    CHECK(team.runs() == 150);
}

TEST_CASE("idle threads sleep") {
    ThreadTeam team(3);
    team.run([](TeamMember&) {});
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    const std::clock_t before = std::clock();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    const double busy = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
    CHECK(busy < 0.05);  // two spinning threads would take up to 0.4 s
}

TEST_CASE("wrong team sizes are refused") {
    CHECK_THROWS_AS(ThreadTeam(-1), Error);
    CHECK(ThreadTeam::physical_cores() >= 1);
    CHECK(ThreadTeam(0).size() == ThreadTeam::physical_cores());
}

TEST_CASE("a thread that the system refuses is an Error, and those that it gave are joined") {
    // Stacks that no address space holds, for the threads of this test alone.
    pthread_attr_t usual, huge;
    REQUIRE(pthread_getattr_default_np(&usual) == 0);
    REQUIRE(pthread_attr_init(&huge) == 0);
    REQUIRE(pthread_attr_setstacksize(&huge, std::size_t{1} << 46) == 0);
    REQUIRE(pthread_setattr_default_np(&huge) == 0);
    CHECK_THROWS_WITH(ThreadTeam(4), Catch::Matchers::ContainsSubstring("1 of 4 threads"));
    REQUIRE(pthread_setattr_default_np(&usual) == 0);
#if !defined(__SANITIZE_ADDRESS__)  // which reserves terabytes of addresses itself
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit tight{static_cast<rlim_t>(pages * sysconf(_SC_PAGESIZE)) + (std::size_t{200} << 20), before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
    std::string message;
    for (int trial = 0; trial < 3; ++trial) try {
            const ThreadTeam team(1000);
        } catch (const Error& error) {
            message = error.what();
        }
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK_THAT(message, Catch::Matchers::ContainsSubstring("of 1000 threads"));
    CHECK_THAT(message, !Catch::Matchers::ContainsSubstring(" 1 of 1000"));  // some had been started
#endif
    for (const int threads : {-1, 1025}) CHECK_THROWS_AS(ThreadTeam(threads), Error);
    std::atomic<int> members = 0;
    ThreadTeam team(3);
    team.run([&](TeamMember&) { ++members; });
    CHECK(members == 3);
}
