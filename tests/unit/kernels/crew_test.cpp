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

/// Runs of 3 ms for one thread, on a machine that leaves `cores` of them: beyond that, members are late for most of a
/// run that takes `thrash` times as long.
struct World {
    int cores = 1;
    double thrash = 5;

    [[nodiscard]] double seconds(int members) const {
        const double alone = 3e-3, well = alone / (1 + 0.8 * double(std::min(members, cores) - 1));
        return members <= cores ? well : thrash * well;
    }
    [[nodiscard]] double late(int members) const {
        return members <= cores ? 0 : (1 - 1 / thrash) * seconds(members) * double(members - 1);
    }
};

/// Seconds for so many runs.
double play(Crew& crew, const World& world, int runs) {
    double sum = 0;
    for (int i = 0; i < runs; ++i) {
        const double seconds = world.seconds(crew.members());
        crew.learn(seconds, world.late(crew.members()));
        sum += seconds;
    }
    return sum;
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
    for (const double thrash : {2.5, 5.0, 20.0}) {
        Crew crew(size);
        const World busy{cores, thrash};
        CAPTURE(size, cores, thrash);
        (void)play(crew, busy, 300);
        const double best = 3000 * busy.seconds(cores), all = 3000 * busy.seconds(size);
        const double found = play(crew, busy, 3000);
        CHECK(found < best / 0.8);
        CHECK(found < all);
        (void)play(crew, {size}, 20000);
        CHECK(crew.members() == size);
    }
}

TEST_CASE("a little waiting is cheaper than a member less") {
    Crew crew(2);
    for (int i = 0; i < 1000; ++i) crew.learn(3e-3, 0.3e-3);
    CHECK(crew.members() == 2);
}

TEST_CASE("a team of one stays one") {
    Crew crew(1);
    for (int i = 0; i < 1000; ++i) crew.learn(3e-3, 0);
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
