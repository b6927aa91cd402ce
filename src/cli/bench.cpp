// outrider bench: what this machine can gain from drafting, said beforehand.
//
// --seconds bounds what is measured, in shares: the multiply rates (a tenth), the cost of passes (a sixth for each
// way of holding the weights) and drafting (a third); the rest is for loading and a few reads of memory. A share is a
// time after which no more is begun, but each thing is measured at least: products and sweeps three times, a round
// once. So a large model takes longer.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <utility>

#include <outrider/core/detail/clock.hpp>
#include <outrider/core/detail/cores.hpp>
#include <outrider/target/detail/pass_times.hpp>

#include "arguments.hpp"
#include "bench_drafting.hpp"
#include "bench_machine.hpp"
#include "bench_report.hpp"
#include "engine.hpp"
#include "json_output.hpp"
#include "kernels/isa.hpp"
#include "model_facts.hpp"
#include "output.hpp"
#include "progress.hpp"

namespace outrider::cli {
namespace {

constexpr double kRates = 0.1, kPasses = 0.13, kPlain = 0.04, kDrafting = 0.35;  // shares of --seconds

void see_machine(const BenchArguments& arguments, const LlamaModel& model, BenchReport& report) {
    MachineFacts& machine = report.machine;
    machine.processor = detail::processor_name();
    machine.cores = ThreadTeam::physical_cores();
    machine.threads = model.threads();
    machine.path = name(active_isa());
    if (!model.device().is_cpu()) return;
    ThreadTeam team(arguments.model.threads);
    measure_bandwidth(team, machine);
    if (!arguments.brief) report.rates = multiply_rates(team, model.weights_description(), kRates * arguments.seconds);
}

/// Up to trees of kBenchNodes nodes at least, if need be in more time: on a busy machine a sweep may not come far.
MeasuredPasses measure_passes(const LlamaModel& model, double seconds) {
    const auto pass = model.make_pass();
    MeasuredPasses measured = measure_pass_times(model, *pass, seconds);
    for (int more = 0; more < 2 && (measured.times.empty() || measured.times.back().rows <= kBenchNodes); ++more)
        measured = measure_pass_times(model, *pass, seconds *= 2);
    require(!measured.times.empty(), ErrorKind::not_supported,
            "bench: the model's context of {} tokens is too short to measure passes in", model.config().context);
    return measured;
}

WeightsSeen see_passes(const LlamaModel& model, double seconds) {
    MeasuredPasses measured = measure_passes(model, seconds);
    const double plain = plain_round(model, kPlain / kPasses * seconds);
    return {.weights = std::string(name_of(model.weights())),
            .description = model.weights_description(),
            .bytes = model.weight_bytes(),
            .plain_seconds = plain > 0 ? plain : measured.times.front().seconds,
            .passes = std::move(measured.times),
            .steady = measured.steady};
}

/// Other ways of holding the weights that are worth a look: of a file whose blocks are multiplied as they are, bf16,
/// where memory holds it.
std::vector<std::string> further_ways(const ModelArguments& arguments, const LlamaModel& model, BenchReport& report) {
    if (arguments.weights != "auto" || !model.device().is_cpu() || model.weights() != Weights::stored) return {};
    const std::int64_t bytes = 2 * read_facts(arguments.path).parameters();
    if (const auto there = available_memory(); there && bytes > *there / 2) {
        report.notes.push_back(
            fmt::format("bf16 is left out: its {} are more than half of the free memory; ask with "
                        "--weights bf16",
                        readable_bytes(bytes)));
        return {};
    }
    return {"bf16"};
}

void see_drafter(const BenchArguments& arguments, const LlamaModel& model, BenchReport& report) {
    const std::string name = drafter_or_default(arguments.drafter, model);
    if (name == "none") return;
    DecodingArguments decoding;
    decoding.nodes = kBenchNodes;
    const auto drafter = load_drafter(name, model, arguments.model, decoding);
    if (drafter->kind() == "none") return;
    report.drafting = see_drafting(model, name, *drafter, report.ways.front().passes, kDrafting * arguments.seconds);
}

BenchReport measure(const BenchArguments& arguments) {
    const double start = now_seconds(), passes = kPasses * arguments.seconds;
    ProgressLine progress("bench", 4);
    BenchReport report;
    report.model = arguments.model.path, report.device = arguments.model.device;
    std::vector<std::string> further;
    const OtherWork others;
    {
        const LlamaModel model = load_model(arguments.model);
        progress.update(1, "memory and products");
        see_machine(arguments, model, report);
        progress.update(2, "passes");
        report.ways.push_back(see_passes(model, passes));
        progress.update(3, "drafts");
        see_drafter(arguments, model, report);
        further = further_ways(arguments.model, model, report);
    }
    for (const std::string& weights : further) {  // one model at a time
        ModelArguments other = arguments.model;
        other.weights = weights;
        report.ways.push_back(see_passes(load_model(other), passes));
    }
    progress.update(4);
    report.others = others.processors();
    report.crowded = OtherWork::crowds(report.others, report.machine.threads);
    report.seconds = now_seconds() - start;
    return report;
}

}  // namespace

int run(const BenchArguments& arguments) {
    refuse_inputs("--json", arguments.json, {arguments.model.path});
    ReportFile json("--json", arguments.json, ReportFile::Partial::removed);
    const BenchReport report = measure(arguments);
    json.write_line(to_text(to_json(report), 2));
    json.finish();
    if (arguments.json != "-") print(to_page(report, arguments.brief));
    return 0;
}

}  // namespace outrider::cli
