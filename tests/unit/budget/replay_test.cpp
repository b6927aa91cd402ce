// Budgets on rounds that real machines recorded (tests/golden/rounds), quiet ones and busy ones.
#include <catch2/catch_all.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <tuple>

#include "replay.hpp"

using namespace outrider;
using namespace outrider::replay;

namespace {

constexpr int kSeeds = 24;  // of the noise that is drawn from the recording

Conditions conditions_of(const std::string& kind) {
    if (kind == "ngram") return {.catch_up = 2e-6, .first = 0};
    return {.catch_up = 0.2e-3, .first = 3e-3};
}

template <typename Run>
double rate(Run&& run) {
    double sum = 0;
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) sum += run(seed).rate() / kSeeds;
    return sum;
}

TreeBudget automatic(const std::vector<PassTime>& table, bool rests = false) {
    TreeBudget budget(kAutoNodes);
    budget.measured(table, rests);
    return budget;
}

struct Recording {
    std::string name;
    std::map<std::string, Positions> all;
    std::vector<PassTime> table;
};

std::vector<Recording> recordings() {
    std::vector<Recording> found;
    for (const auto& file : std::filesystem::directory_iterator(OUTRIDER_SOURCE_DIR "/tests/golden/rounds")) {
        if (file.path().extension() != ".txt") continue;
        Recording r{file.path().stem().string(), load(file.path().string()), {}};
        r.table = table_of(r.all.at("none"), r.all.at("ngram"));
        found.push_back(std::move(r));
    }
    return found;
}

/// Larger passes take at least what smaller ones do.
void never_falling_from_the_first(std::vector<PassTime>& table) {
    for (std::size_t i = 1; i < table.size(); ++i) table[i].seconds = std::max(table[i].seconds, table[i - 1].seconds);
}

double automatic_rate(const Recording& r, const std::string& kind, const std::vector<PassTime>& table) {
    const Positions& none = r.all.at("none");
    if (kind.ends_with("+ngram") && r.all.contains("ngram"))
        return rate([&](auto seed) {
            return run_merged(r.all, kind.substr(0, kind.find('+')), automatic(table, true), conditions_of(kind), seed);
        });
    return rate([&](auto seed) { return run(r.all.at(kind), none, automatic(table), conditions_of(kind), seed); });
}

/// Asked for by several cases, and worked out once.
double fixed_rate(const Recording& r, const std::string& kind, std::int64_t nodes) {
    static std::map<std::tuple<std::string, std::string, std::int64_t>, double> known;
    const auto [found, fresh] = known.try_emplace({r.name, kind, nodes}, 0.0);
    if (fresh)
        found->second = rate([&](auto seed) {
            return run(r.all.at(kind), r.all.at("none"), TreeBudget(nodes), conditions_of(kind), seed);
        });
    return found->second;
}

double best_fixed_rate(const Recording& r, const std::string& kind) {
    double best = 0;
    for (std::int64_t n = 1; n <= 8; ++n) best = std::max(best, fixed_rate(r, kind, n));
    return best;
}

}  // namespace

TEST_CASE("on recorded rounds auto is near the best fixed size in hindsight, and never below plain",
          "[budget][replay]") {
    const std::vector<Recording> all = recordings();
    REQUIRE(all.size() >= 8);
    for (const Recording& r : all)
        for (const auto& [kind, positions] : r.all) {
            if (kind == "none") continue;
            const double plain = fixed_rate(r, kind, 0), best = best_fixed_rate(r, kind);
            const double found = automatic_rate(r, kind, r.table);
            CAPTURE(r.name, kind, best / plain, found / plain);
            CHECK(found >= 0.95 * best);
            CHECK(found >= 0.97 * plain);
        }
}

TEST_CASE("on recorded rounds a merged drafter is near the best of its parts", "[budget][replay]") {
    for (const Recording& r : recordings())
        for (const auto& [kind, positions] : r.all) {
            if (!kind.ends_with("+ngram")) continue;
            const double parts = std::max(automatic_rate(r, "ngram", r.table),
                                          automatic_rate(r, kind.substr(0, kind.find('+')), r.table));
            const double merged = automatic_rate(r, kind, r.table);
            CAPTURE(r.name, kind, merged / parts);
            CHECK(merged >= 0.97 * parts);
        }
}

TEST_CASE("on recorded rounds a table that is somewhat wrong costs little", "[budget][replay]") {
    for (const Recording& r : recordings())
        for (const double wrong : {0.9, 1.12}) {  // what the check at the start lets pass
            std::vector<PassTime> table = r.table;
            for (PassTime& t : table) t.seconds *= t.rows > 1 ? wrong : 1.0;
            never_falling_from_the_first(table);
            for (const auto& [kind, positions] : r.all) {
                if (kind == "none") continue;
                const double plain = fixed_rate(r, kind, 0), best = best_fixed_rate(r, kind);
                const double found = automatic_rate(r, kind, table);
                CAPTURE(r.name, kind, wrong, best / plain, found / plain);
                CHECK(found >= 0.9 * best);
                CHECK(found >= 0.97 * plain);
            }
        }
}
