// How many threads take part beside other work, how long they spin for each other, and how many cores there are.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include <outrider/core/detail/cores.hpp>
#include <outrider/core/detail/crew.hpp>
#include <outrider/core/detail/patience.hpp>

using namespace outrider::detail;

namespace {

/// Runs of 3 ms for one thread, on a machine that leaves `cores` of them: beyond that, members are late, and a run
/// takes `thrash` times as long as it would take so many cores. Alone, a member has its core for the share `own` of
/// time.
struct World {
    int cores = 1;
    double thrash = 5, own = 1;

    [[nodiscard]] double seconds(int members) const {
        const double well = kAlone / Crew::scale(std::min(members, cores)) / own;
        return members <= cores ? well : thrash * well;
    }
    static constexpr double kAlone = 3e-3;
};

/// Seconds for so many runs, each of which is the same work.
double play(Crew& crew, const World& world, int runs) {
    double sum = 0;
    for (int i = 0; i < runs; ++i) {
        const double seconds = world.seconds(crew.members());
        crew.learn(seconds, World::kAlone);
        sum += seconds;
    }
    return sum;
}

/// Seconds that as many runs take at their best number of members.
double best(const World& world, int size, int runs) {
    double least = world.seconds(1);
    for (int members = 2; members <= size; ++members) least = std::min(least, world.seconds(members));
    return runs * least;
}

}  // namespace

TEST_CASE("a quiet machine keeps all members") {
    Crew crew(4);
    const World quiet{4};
    CHECK(play(crew, quiet, 2000) == play(crew, {4, 100}, 2000));
    CHECK(crew.members() == 4);
}

TEST_CASE("members that would be waited for are left out, and come back when their cores are free") {
    const int size = GENERATE(2, 3, 8), cores = GENERATE(1, 2, 6);
    if (cores >= size) return;
    for (const double thrash : {1.5, 2.5, 5.0, 20.0, 100.0}) {
        Crew crew(size);
        const World busy{cores, thrash, 0.6};
        CAPTURE(size, cores, thrash);
        (void)play(crew, busy, 300);
        CHECK(play(crew, busy, 3000) < best(busy, size, 3000) / 0.9);
        (void)play(crew, {size}, 20000);
        CHECK(crew.members() == size);
    }
}

TEST_CASE("trials cost a bounded share of time, however bad one is") {
    Crew crew(2);
    const World busy{1, 100};  // a trial of one run of 0.17 s
    (void)play(crew, busy, 300);
    const double found = play(crew, busy, 20000);
    CHECK(found < 1.06 * best(busy, 2, 20000));
    CHECK(found > best(busy, 2, 20000));  // there are some
}

TEST_CASE("all members stay where each of them has its core for a part of the time only") {
    Crew crew(2);
    const World shared{2, 5, 0.5};  // one alone does half of what it could: two are tried against one, and stay
    (void)play(crew, shared, 300);
    CHECK(play(crew, shared, 3000) < best(shared, 2, 3000) / 0.95);
}

TEST_CASE("a moment's noise changes little") {
    Crew crew(2);
    double sum = 0;
    for (int i = 0; i < 3000; ++i) {
        const double seconds = World{2}.seconds(crew.members()) + (i % 100 == 0 ? 10e-3 : 0);
        crew.learn(seconds, World::kAlone), sum += seconds;
    }
    CHECK(sum < (best({2}, 2, 3000) + 30 * 10e-3) / 0.95);
}

TEST_CASE("a team of one stays one") {
    Crew crew(1);
    for (int i = 0; i < 1000; ++i) crew.learn(3e-3, 1e-3);
    CHECK(crew.members() == 1);
}

TEST_CASE("one late member does not put threads to sleep, several in a row do, and spinning is tried again") {
    Patience patience;
    for (int i = 0; i < 200; ++i) {
        CHECK(patience.next() == Patience::kMost);
        patience.learn(i % 5 != 0);  // every fifth wait was for one that had lost its core
    }
    for (int i = 0; i < 20; ++i) (void)patience.next(), patience.learn(false);
    int most = 0, few = 0;
    for (int i = 0; i < 64; ++i) {
        const int spins = patience.next();
        (spins == Patience::kMost ? most : few) += 1;
        patience.learn(false);
    }
    CHECK(most == 1);
    CHECK(few == 63);
    for (int i = 0; i < 12; ++i) (void)patience.next(), patience.learn(true);
    CHECK(patience.next() == Patience::kMost);
}

// Two members that sleep keep each other late, since who is woken arrives late at the next barrier.
TEST_CASE("a long spin that ends a wait ends all sleeping, where sleepers wake late") {
    constexpr int kUsual = 300, kWoken = 3000;  // looks until the other one arrives
    Patience patience;
    for (int i = 0; i < 20; ++i) (void)patience.next(), patience.learn(false);
    bool ended = false;
    int slept = 0;
    for (int i = 0; i < 640; ++i) {
        ended = patience.next() >= (ended ? kUsual : kWoken);
        patience.learn(ended);
        slept += ended ? 0 : 1;
    }
    CHECK(slept < 64);
}

TEST_CASE("cores are those that affinity and control groups leave") {
    struct Folder {
        std::filesystem::path path =
            std::filesystem::temp_directory_path() / ("outrider_cores_" + std::to_string(getpid()));
        ~Folder() { std::filesystem::remove_all(path); }
        void write(const std::string& name, const std::string& text) const {
            std::filesystem::create_directories((path / name).parent_path());
            std::ofstream(path / name) << text;
        }
    } const root;
    CHECK(quota_of(root.path, "/a/b") == 0);
    root.write("a/b/cpu.max", "max 100000\n");
    CHECK(quota_of(root.path, "/a/b") == 0);
    root.write("a/cpu.max", "250000 100000\n");
    CHECK(quota_of(root.path, "/a/b") == 2.5);
    CHECK(quota_of(root.path, "/c") == 0);
    root.write("cpu.max", "50000 100000\n");  // the groups above count as well
    CHECK(quota_of(root.path, "/a/b") == 0.5);
    root.write("v1/cpu.cfs_quota_us", "-1\n"), root.write("v1/cpu.cfs_period_us", "100000\n");
    CHECK(quota_of(root.path / "v1", "/") == 0);
    root.write("v1/cpu.cfs_quota_us", "300000\n");
    CHECK(quota_of(root.path / "v1", "/") == 3);
    CHECK(usable_cores() >= 1);
    CHECK(usable_cores() <= std::max(1, cores_by_affinity()));
}
