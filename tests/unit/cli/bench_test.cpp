#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include <bench_report.hpp>

#include <algorithm>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <outrider/core/error.hpp>

using namespace outrider;
using namespace outrider::cli;
using Catch::Approx;

namespace {

const std::vector<PassTime> kTable = {{1, 0.010}, {3, 0.012}, {5, 0.016}, {17, 0.040}, {33, 0.072}};

/// Four rounds of trees with up to 4 nodes: 1.5 tokens a pass with one node, 2.25 with all.
RankCounts four_rounds() {
    RankCounts counts(4);
    counts.add(4, std::vector<NodeIndex>{1, 3});
    counts.add(4, std::vector<NodeIndex>{2, 4});
    counts.add(2, std::vector<NodeIndex>{1});
    counts.add(0, {});
    return counts;
}

BenchReport report_of(std::optional<DraftingSeen> drafting) {
    BenchReport report;
    report.model = "m.gguf", report.device = "cpu";
    report.machine = {.processor = "Some Processor",
                      .cores = 2,
                      .threads = 2,
                      .path = "avx2",
                      .bytes_per_second = 2e10,
                      .buffer_bytes = 1 << 28};
    for (const char* path : {"avx2", "vnni"})
        for (const std::int64_t rows : {1, 16}) report.rates.push_back({path, "q4_1", rows, 1e10 * double(rows)});
    report.ways = {{"stored", "stored (q4_1)", 100'000'000, 0.010, kTable, true},
                   {"bf16", "bf16 (bf16)", 270'000'000, 0.020, {{1, 0.020}, {17, 0.022}}, true}};
    report.drafting = std::move(drafting);
    return report;
}

DraftingSeen seen(double draft_seconds) {
    DraftingSeen drafting;
    drafting.name = "drafters/d+ngram", drafting.kind = "ctc+ngram";
    drafting.counts = four_rounds();
    drafting.tokens = 9, drafting.draft_seconds = draft_seconds;
    drafting.beside_few = drafting.beside_many = draft_seconds;
    return drafting;
}

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("bench: tokens a pass by the ranks of the nodes that were kept") {
    const RankCounts counts = four_rounds();
    CHECK(counts.rounds() == 4);
    CHECK(counts.beta(0) == 1.0);
    CHECK(counts.beta(1) == Approx(1.5));
    CHECK(counts.beta(2) == Approx(1.75));
    CHECK(counts.beta(3) == Approx(2.0));
    CHECK(counts.beta(4) == Approx(2.25));
    CHECK(RankCounts(4).beta(3) == 1.0);
    RankCounts small(2);
    CHECK_THROWS_AS(small.add(3, {}), Error);
}

TEST_CASE("bench: the first n nodes of a tree, cut and walked again, keep what the ranks say") {
    std::mt19937 random(7);
    for (int trial = 0; trial < 50; ++trial) {
        constexpr NodeIndex kNodes = 12;
        RankCounts counts(kNodes);
        std::vector<std::int64_t> kept(kNodes + 1);
        for (int round = 0; round < 20; ++round) {
            std::vector<NodeIndex> parents{kNoNode}, path;
            for (NodeIndex n = 1; n <= kNodes; ++n)
                parents.push_back(static_cast<NodeIndex>(random() % static_cast<unsigned>(n)));
            const auto next = [&](NodeIndex at, NodeIndex limit) {  // the target's choice: the first child there is
                for (NodeIndex n = at + 1; n <= limit; ++n)
                    if (parents[static_cast<std::size_t>(n)] == at) return n;
                return kNoNode;
            };
            for (NodeIndex at = next(0, kNodes); at != kNoNode; at = next(at, kNodes)) path.push_back(at);
            counts.add(kNodes, path);
            for (NodeIndex limit = 1; limit <= kNodes; ++limit)
                for (NodeIndex at = next(0, limit); at != kNoNode; at = next(at, limit))
                    ++kept[static_cast<std::size_t>(limit)];
        }
        for (std::int64_t n = 1; n <= kNodes; ++n)
            CHECK(counts.beta(n) == Approx(1 + double(kept[static_cast<std::size_t>(n)]) / 20));
    }
}

TEST_CASE("bench: the cost curve lies on straight lines between measured sizes") {
    const auto curve = cost_curve(kTable, 0.010, nullptr);
    REQUIRE(curve.size() == kCurveNodes.size());
    const auto seconds = [&](std::int64_t nodes) {
        return std::find_if(curve.begin(), curve.end(), [&](const auto& p) { return p.nodes == nodes; })->seconds;
    };
    CHECK(seconds(0) == Approx(0.010));
    CHECK(seconds(1) == Approx(0.011));
    CHECK(seconds(2) == Approx(0.012));
    CHECK(seconds(6) == Approx(0.020));  // 7 rows: a sixth of the way from 5 to 17
    CHECK(seconds(32) == Approx(0.072));
    for (const CurvePoint& point : curve) {
        CHECK(point.ratio == Approx(point.seconds / 0.010));
        CHECK(point.gamma.has_value() == (point.nodes == 0));
        CHECK(point.gain(2.5).has_value() == (point.nodes >= 2));  // n nodes bring n + 1 tokens at most
    }
    CHECK(*curve[2].gain(2.4) == Approx(2.0));
    CHECK(cost_curve(std::span(kTable).first(3), 0.010, nullptr).back().nodes ==
          4);  // 5 rows are the most that was measured
    CHECK_THROWS_AS(cost_curve({}, 0.010, nullptr), Error);
}

TEST_CASE("bench: plain decoding is taken as it runs, and no larger pass counts for less") {
    const auto faster = cost_curve(kTable, 0.008, nullptr);
    CHECK((faster[0].seconds == 0.008 && faster[0].ratio == 1.0));
    CHECK(faster[1].ratio == Approx(0.011 / 0.008));
    const auto slower = cost_curve(kTable, 0.0125, nullptr);
    CHECK((slower[1].ratio == 1.0 && slower[2].ratio == 1.0));
    CHECK(slower[3].ratio == Approx(0.016 / 0.0125));
}

TEST_CASE("bench: gamma is what passes bring over what they and the drafts cost") {
    const DraftingSeen drafting = seen(0.002);
    const auto curve = cost_curve(kTable, 0.010, &drafting);
    CHECK((*curve[0].beta == 1.0 && *curve[0].gamma == 1.0));
    CHECK(*curve[1].beta == Approx(1.5));
    // One tree of four had no node: three passes of 2 rows and one of 1.
    CHECK(*curve[1].gamma == Approx(1.5 * 0.010 / (0.25 * (3 * 0.011 + 0.010) + 0.002)));
    // 4 nodes: two trees had them, one had 2.
    CHECK(*curve[3].gamma == Approx(2.25 * 0.010 / (0.25 * (2 * 0.016 + 0.012 + 0.010) + 0.002)));
    CHECK_FALSE(curve[4].beta.has_value());  // 6 nodes were never drafted

    DraftingSeen growing = drafting;
    growing.beside_many = 0.004;
    CHECK((growing.beside(1) == 0.002 && growing.beside(2) == 0.002 && growing.beside(4) == 0.004));
    CHECK(growing.beside(3) == Approx(0.003));
    CHECK(*cost_curve(kTable, 0.010, &growing)[1].gamma == *curve[1].gamma);
    CHECK(*cost_curve(kTable, 0.010, &growing)[3].gamma < *curve[3].gamma);
}

TEST_CASE("bench: the best is the most tokens a second, and drafts must be worth it") {
    const DraftingSeen cheap = seen(0.0), expensive = seen(0.02);
    using Curves = std::vector<std::vector<CurvePoint>>;
    const BestChoice drafted = best_choice(Curves{cost_curve(kTable, 0.010, &cheap)});
    CHECK(drafted.nodes == 4);
    CHECK(drafted.tokens_per_second == Approx(drafted.gamma / 0.010));
    CHECK(drafted.gamma > 1.6);
    const BestChoice plain = best_choice(Curves{cost_curve(kTable, 0.010, &expensive)});
    CHECK((plain.nodes == 0 && plain.gamma == 1.0));
    CHECK(plain.tokens_per_second == Approx(100));
    // Slower when plain, but rows are free there.
    const std::vector<PassTime> flat = {{1, 0.011}, {17, 0.0111}};
    const BestChoice other = best_choice(Curves{cost_curve(kTable, 0.010, &cheap), cost_curve(flat, 0.011, &cheap)});
    CHECK((other.way == 1 && other.nodes == 4));
    std::vector<CurvePoint> within = cost_curve(kTable, 0.010, nullptr);
    within[1].gamma = kWorthwhile - 0.01;
    CHECK(best_choice(Curves{within}).nodes == 0);
    within[1].gamma = kWorthwhile + 0.01;
    CHECK(best_choice(Curves{within}).nodes == 1);
}

TEST_CASE("bench: the page says what was measured and what is best") {
    const std::string page = to_page(report_of(seen(0.0)), false);
    CHECK(has(page, "machine: Some Processor, 2 cores\nthreads: 2, vector path avx2\n"));
    CHECK(has(page, "memory: 20.0 GB/s"));
    CHECK(has(page, "the machine is quiet"));
    CHECK(has(page, "path  q4_1 x1  q4_1 x16\navx2       10       160\nvnni       10       160\n"));
    CHECK(has(page, "weights stored (q4_1): 100 MB, plain 100.0 tokens/s, 10.00 ms each (5.00 to read them)\n"));
    CHECK(has(page, "so few rounds"));
    CHECK(lines_of(page).back().starts_with("best here: --weights stored --nodes 4 with ctc+ngram: "));
    std::size_t rows = 0, heads = 0;
    for (const std::string& line : lines_of(page)) {
        heads += line.starts_with("nodes ") ? 1 : 0;
        rows += !line.empty() && line.find_first_not_of("0123456789") == line.find(' ') && line[0] != ' ' ? 1 : 0;
        CHECK(line.size() <= 110);
    }
    CHECK((heads == 2 && rows == kCurveNodes.size() + 8));  // bf16 was measured up to 17 rows

    const std::string brief = to_page(report_of(seen(0.0)), true);
    CHECK_FALSE(has(brief, "nodes  "));
    CHECK_FALSE(has(brief, "GFLOP/s"));
    CHECK(lines_of(brief).back() == lines_of(page).back());

    const std::string none = to_page(report_of(std::nullopt), false);
    CHECK_FALSE(has(none, "gamma"));
    CHECK(has(none, "best here without drafts: --weights stored, plain, makes 100 tokens/s"));
    CHECK(has(to_page(report_of(seen(0.1)), false), "drafting with ctc+ngram does not pay here: gamma 0."));
}

TEST_CASE("bench: a busy machine is said to be busy, whichever way it shows") {
    BenchReport unsteady = report_of(seen(0.0));
    unsteady.ways[1].steady = false;
    CHECK(unsteady.busy());
    CHECK(has(to_page(unsteady, true), "THE MACHINE IS BUSY: passes of one size took different times"));
    BenchReport crowded = report_of(seen(0.0));
    crowded.others = 1.25, crowded.crowded = true;
    CHECK(has(to_page(crowded, true), "THE MACHINE IS BUSY: other processes kept 1.2 processors busy"));
    CHECK(has(lines_of(to_page(crowded, true)).back(), "roughly"));
    CHECK(to_json(crowded)["machine"]["busy"] == true);
    CHECK(to_json(report_of(seen(0.0)))["machine"]["busy"] == false);
}

TEST_CASE("bench: JSON has every number") {
    const auto json = to_json(report_of(seen(0.001)));
    CHECK(json["weights"].size() == 2);
    CHECK(json["weights"][0]["passes"].size() == kTable.size());
    CHECK(json["weights"][0]["curve"].size() == kCurveNodes.size());
    CHECK(json["weights"][0]["curve"][1]["gain_at_beta"]["1.5"].get<double>() == Approx(1.5 / 1.1));
    CHECK(json["weights"][0]["curve"][1]["gain_at_beta"]["2.5"].is_null());
    CHECK(json["weights"][1]["curve"].size() == 8);
    CHECK(json["weights"][0]["curve"][9]["beta"].is_null());
    CHECK(json["multiply"].size() == 4);
    CHECK(json["drafter"]["kept_by_rank"] == std::vector<int>{0, 2, 1, 1, 1});
    CHECK(json["drafter"]["rounds_by_size"] == std::vector<int>{1, 0, 1, 0, 2});
    CHECK(json["best"]["drafting"] == true);
    CHECK(to_json(report_of(std::nullopt))["drafter"].is_null());
}
