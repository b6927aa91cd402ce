#include "bench_report.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <iterator>

#include <outrider/core/detail/version.hpp>

#include "text.hpp"

namespace outrider::cli {
namespace {

using nlohmann::ordered_json;
using Cells = std::vector<std::vector<std::string>>;

constexpr std::int64_t kFewRounds = 100;  // beta is off by a tenth and more

std::string number(const std::optional<double>& value) { return value ? fmt::format("{:.2f}", *value) : "-"; }

std::string machine_lines(const BenchReport& report) {
    const MachineFacts& m = report.machine;
    std::string lines =
        fmt::format("machine: {}, {} cores\nthreads: {}, vector path {}\n", m.processor, m.cores, m.threads, m.path);
    if (report.device != "cpu") lines += fmt::format("device: {}\n", report.device);
    if (m.bytes_per_second > 0)
        lines += fmt::format("memory: {:.1f} GB/s read by all threads\n", 1e-9 * m.bytes_per_second);
    return lines;
}

/// Whether the figures can be trusted, plainly.
std::string state_lines(const BenchReport& report) {
    const std::string others =
        report.others ? fmt::format("other processes kept {:.1f} processors busy", *report.others) : "";
    if (!report.busy())
        return fmt::format("the machine is quiet: passes took as long again and again{}\n",
                           others.empty() ? "" : "; " + others);
    return fmt::format(
        "THE MACHINE IS BUSY: {}.\n"
        "The figures are rough: speeds are too low, ratios and gamma may be off by a third.\n"
        "Run it again when nothing else runs.\n",
        report.crowded ? others : "passes of one size took different times");
}

std::string rate_table(const std::vector<MultiplyRate>& rates) {
    Cells cells = {{"path"}};
    for (const MultiplyRate& rate : rates) {
        const std::string head = fmt::format("{} x{}", rate.format, rate.rows);
        if (std::find(cells[0].begin(), cells[0].end(), head) == cells[0].end()) cells[0].push_back(head);
        const auto is_path = [&](const auto& row) { return row[0] == rate.path; };
        auto row = std::find_if(cells.begin() + 1, cells.end(), is_path);
        if (row == cells.end()) row = cells.insert(cells.end(), std::vector<std::string>{rate.path});
        row->push_back(fmt::format("{:.0f}", 1e-9 * rate.operations_per_second));
    }
    return "\nGFLOP/s, weights of 2048 x 2048 times 1 and 16 rows\n" + table(cells);
}

std::string weights_line(const WeightsSeen& way, const MachineFacts& machine) {
    const double plain = way.plain_seconds;
    std::string line = fmt::format("weights {}: {:.0f} MB, plain {:.1f} tokens/s, {:.2f} ms each", way.description,
                                   1e-6 * double(way.bytes), 1 / plain, 1e3 * plain);
    if (machine.bytes_per_second > 0)
        line += fmt::format(" ({:.2f} to read them)", 1e3 * double(way.bytes) / machine.bytes_per_second);
    return line + '\n';
}

std::string curve_table(const std::vector<CurvePoint>& curve, bool drafting) {
    Cells cells = {{"nodes", "ms", "ratio"}};
    for (const double beta : kCurveBetas) cells[0].push_back(fmt::format("at {:g}", beta));
    if (drafting) cells[0].insert(cells[0].end(), {"beta", "gamma"});
    for (const CurvePoint& point : curve) {
        cells.push_back({fmt::format("{}", point.nodes), fmt::format("{:.2f}", 1e3 * point.seconds),
                         fmt::format("{:.2f}", point.ratio)});
        for (const double beta : kCurveBetas) cells.back().push_back(number(point.gain(beta)));
        if (drafting) cells.back().insert(cells.back().end(), {number(point.beta), number(point.gamma)});
    }
    return table(cells);
}

std::string drafting_lines(const DraftingSeen& seen) {
    const std::int64_t nodes = seen.counts.nodes();
    std::string lines = fmt::format(
        "drafter {}: {} rounds with {} nodes on built-in prompts, {:.2f} tokens each\n"
        "a draft takes {:.2f} ms; rounds take {:.2f} ms (2 nodes) to {:.2f} ms ({} nodes) beside their passes\n",
        seen.kind, seen.counts.rounds(), nodes, seen.counts.beta(nodes), 1e3 * seen.draft_seconds,
        1e3 * seen.beside_few, 1e3 * seen.beside_many, nodes);
    if (seen.counts.rounds() < kFewRounds)
        lines += "so few rounds tell beta roughly; --seconds N takes longer and sees more\n";
    return lines;
}

constexpr const char* kLegend =
    "\nat B: the gain over plain decoding where such a pass brings B tokens, drafts themselves free.\n";

std::string best_line(const BenchReport& report, const std::vector<std::vector<CurvePoint>>& curves) {
    const BestChoice best = best_choice(curves);
    const std::string& weights = report.ways[best.way].weights;
    const std::string rough = report.busy() ? ", roughly" : "";
    if (best.nodes > 0)
        return fmt::format("best here: --weights {} --nodes {} with {}: {:.0f} tokens/s expected{}, gamma {:.2f}\n",
                           weights, best.nodes, report.drafting->kind, best.tokens_per_second, rough, best.gamma);
    const std::string plain =
        fmt::format("--weights {}, plain, makes {:.0f} tokens/s{}\n", weights, best.tokens_per_second, rough);
    if (!report.drafting) return "best here without drafts: " + plain;
    double most = 0;
    for (const CurvePoint& point : curves[best.way])
        if (point.nodes > 0) most = std::max(most, point.gamma.value_or(0));
    return fmt::format("drafting with {} does not pay here: gamma {:.2f} at best{}\nbest here: {}",
                       report.drafting->kind, most, rough, plain);
}

ordered_json curve_json(const std::vector<CurvePoint>& curve) {
    ordered_json list = ordered_json::array();
    const auto value = [](const std::optional<double>& x) { return x ? ordered_json(*x) : ordered_json(nullptr); };
    for (const CurvePoint& point : curve) {
        ordered_json gains = ordered_json::object();
        for (const double beta : kCurveBetas) gains[fmt::format("{:g}", beta)] = value(point.gain(beta));
        list.push_back({{"nodes", point.nodes},
                        {"seconds", point.seconds},
                        {"ratio", point.ratio},
                        {"gain_at_beta", std::move(gains)},
                        {"beta", value(point.beta)},
                        {"gamma", value(point.gamma)}});
    }
    return list;
}

ordered_json drafting_json(const DraftingSeen& seen) {
    return {{"name", seen.name},
            {"kind", seen.kind},
            {"nodes", seen.counts.nodes()},
            {"rounds", seen.counts.rounds()},
            {"tokens", seen.tokens},
            {"draft_seconds", seen.draft_seconds},
            {"beside_seconds", {{"2", seen.beside_few}, {fmt::format("{}", seen.counts.nodes()), seen.beside_many}}},
            {"rounds_by_size", seen.counts.sizes()},
            {"kept_by_rank", seen.counts.kept()}};
}

ordered_json machine_json(const BenchReport& report) {
    const MachineFacts& m = report.machine;
    ordered_json machine = {{"processor", m.processor},    {"cores", m.cores},
                            {"threads", m.threads},        {"path", m.path},
                            {"bytes_per_second", nullptr}, {"buffer_bytes", m.buffer_bytes},
                            {"busy", report.busy()},       {"others", nullptr}};
    if (m.bytes_per_second > 0) machine["bytes_per_second"] = m.bytes_per_second;
    if (report.others) machine["others"] = *report.others;
    return machine;
}

ordered_json weights_json(const WeightsSeen& way, const std::vector<CurvePoint>& curve) {
    ordered_json passes = ordered_json::array();
    for (const PassTime& pass : way.passes) passes.push_back({{"rows", pass.rows}, {"seconds", pass.seconds}});
    return {{"weights", way.weights},
            {"description", way.description},
            {"bytes", way.bytes},
            {"steady", way.steady},
            {"plain_tokens_per_second", 1 / way.plain_seconds},
            {"passes", std::move(passes)},
            {"curve", curve_json(curve)}};
}

}  // namespace

bool BenchReport::busy() const {
    return crowded || !std::all_of(ways.begin(), ways.end(), [](const WeightsSeen& way) { return way.steady; });
}

std::vector<std::vector<CurvePoint>> BenchReport::curves() const {
    std::vector<std::vector<CurvePoint>> curves;
    curves.reserve(ways.size());
    for (const WeightsSeen& way : ways)
        curves.push_back(cost_curve(way.passes, way.plain_seconds, drafting ? &*drafting : nullptr));
    return curves;
}

std::string to_page(const BenchReport& report, bool brief) {
    const auto curves = report.curves();
    std::string page = machine_lines(report) + state_lines(report);
    if (!brief && !report.rates.empty()) page += rate_table(report.rates);
    for (std::size_t i = 0; i < report.ways.size(); ++i) {
        if (!brief) page += '\n';
        page += weights_line(report.ways[i], report.machine);
        if (!brief) page += curve_table(curves[i], report.drafting.has_value());
    }
    if (!brief) page += kLegend;
    if (report.drafting) page += drafting_lines(*report.drafting);
    for (const std::string& note : report.notes) page += note + '\n';
    return page + best_line(report, curves);
}

ordered_json to_json(const BenchReport& report) {
    const auto curves = report.curves();
    ordered_json multiply = ordered_json::array(), ways = ordered_json::array();
    for (const MultiplyRate& rate : report.rates)
        multiply.push_back({{"path", rate.path},
                            {"format", rate.format},
                            {"rows", rate.rows},
                            {"operations_per_second", rate.operations_per_second}});
    for (std::size_t i = 0; i < report.ways.size(); ++i) ways.push_back(weights_json(report.ways[i], curves[i]));
    const BestChoice best = best_choice(curves);
    return {{"version", kVersion},
            {"model", report.model},
            {"device", report.device},
            {"machine", machine_json(report)},
            {"multiply", std::move(multiply)},
            {"weights", std::move(ways)},
            {"drafter", report.drafting ? drafting_json(*report.drafting) : ordered_json(nullptr)},
            {"notes", report.notes},
            {"best",
             {{"weights", report.ways[best.way].weights},
              {"nodes", best.nodes},
              {"tokens_per_second", best.tokens_per_second},
              {"gamma", best.gamma},
              {"drafting", best.nodes > 0}}},
            {"seconds", report.seconds}};
}

}  // namespace outrider::cli
