// outrider compare: several drafters over the same prompts, prompt by prompt in turn, so that noise hits all alike.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <outrider/core/detail/version.hpp>

#include "arguments.hpp"
#include "engine.hpp"
#include "json_output.hpp"
#include "output.hpp"
#include "progress.hpp"
#include "prompts_file.hpp"
#include "report.hpp"
#include "tree_choice.hpp"

namespace outrider::cli {
namespace {

/// The prompts file as the target reads it.
struct Questions {
    std::vector<std::string> ids;
    std::vector<Prompt> prompts;
    std::vector<std::uint64_t> samples;
};

/// One drafter at one size of its trees, with its own decoder and caches; the model's weights are shared.
struct Contender {
    std::string name;
    std::optional<std::int64_t> nodes;  ///< nullopt: auto
    AnyDecoder decoder;
    std::vector<Outcome> outcomes = {};
};

/// Decodes prompts [begin, end), as many at once as the decoder takes, and appends their outcomes in order.
void decode(Contender& contender, const Questions& questions, std::size_t begin, std::size_t end,
            const DecodingArguments& arguments) {
    std::vector<SequenceId> sequences;
    for (std::size_t i = begin; i < end; ++i)
        sequences.push_back(join(contender.decoder, questions.ids[i], questions.prompts[i],
                                 options_for(arguments, questions.prompts[i], questions.samples[i])));
    contender.decoder.run();
    for (const SequenceId sequence : sequences) {
        GenerationResult result = contender.decoder.take(sequence);
        contender.outcomes.push_back({std::move(result.tokens), std::move(result.stats)});
    }
}

/// First touch of weights, caches and code happens here, outside what is measured.
void warm_up(std::vector<Contender>& contenders, const Prompt& prompt) {
    GenerationOptions brief;
    brief.max_tokens = 4;
    for (Contender& contender : contenders) (void)contender.decoder.generate(prompt, brief);
}

/// How far apart the target's logits are at the place where `a` and `b` part: the pass over the common beginning again.
double logit_gap(const LlamaModel& model, const Prompt& prompt, std::span<const TokenId> a, std::span<const TokenId> b,
                 std::int64_t position) {
    std::vector<TokenId> text = prompt.tokens;
    text.insert(text.end(), a.begin(), a.begin() + position);
    LlamaVerifier verifier(model);
    const Prefill prefill{0, std::span(text).first(text.size() - 1), text.back()};
    (void)none_refused(verifier.prefill(std::span(&prefill, 1)));
    const SequenceTree root{0, TokenTree::root_only(text.back())};
    const TreeOutput output = none_refused(verifier.verify(std::span(&root, 1)));
    const at::Tensor logits = output.logits[0].to(at::kCPU);
    const auto at = static_cast<std::size_t>(position);
    return std::abs(logits[a[at]].item<double>() - logits[b[at]].item<double>());
}

/// Greedy texts part only where the target itself all but ties; the gap proves it or denies it.
void add_logit_gaps(Row& row, const LlamaModel& model, const Questions& questions, const Contender& plain,
                    const Contender& drafted) {
    for (Difference& difference : row.differences) {
        const std::size_t i = difference.prompt;
        const auto &a = plain.outcomes[i].tokens, &b = drafted.outcomes[i].tokens;
        if (difference.position < std::min(std::ssize(a), std::ssize(b)))
            difference.logit_gap = logit_gap(model, questions.prompts[i], a, b, difference.position);
    }
}

nlohmann::ordered_json settings(const CompareArguments& a, const LlamaModel& model, std::size_t prompts) {
    const GenerationOptions& g = a.decoding.generation;
    nlohmann::ordered_json nodes = nlohmann::ordered_json::array();
    for (const auto& size : a.nodes) nodes.push_back(nodes_to_json(size));
    if (a.nodes.size() == 1) nodes = nodes_to_json(a.nodes.front());
    return {{"version", kVersion},
            {"model", a.model.path},
            {"weights", model.weights_description()},
            {"weight_bytes", model.weight_bytes()},
            {"device", a.model.device},
            {"threads", a.model.threads},
            {"raw", a.model.raw},
            {"prompts", a.prompts},
            {"prompt_count", prompts},
            {"drafters", a.drafters},
            {"nodes", nodes},
            {"accept", a.decoding.accept},
            {"tree", a.decoding.tree},
            {"chains", a.decoding.chains},
            {"batch", a.decoding.batch},
            {"max_tokens", g.max_tokens},
            {"temperature", g.temperature},
            {"top_p", g.top_p},
            {"top_k", g.top_k},
            {"min_p", g.min_p},
            {"repetition_penalty", g.repetition_penalty},
            {"seed", g.seed.value_or(0)},
            {"stop", g.stop}};
}

void run_all(std::vector<Contender>& contenders, const Questions& questions, const DecodingArguments& arguments) {
    warm_up(contenders, questions.prompts.front());
    ProgressLine progress("compare", std::ssize(questions.prompts));
    const auto batch = static_cast<std::size_t>(arguments.batch), count = questions.prompts.size();
    // Batches as they run in earnest: who ends makes room for the next. Only a group's end runs with fewer.
    const std::size_t together = batch == 1 ? 1 : 4 * batch;
    for (std::size_t begin = 0, group = 0; begin < count; begin += together, ++group) {
        const std::size_t end = std::min(count, begin + together);
        for (std::size_t turn = 0; turn < contenders.size(); ++turn)  // another one goes first each time
            decode(contenders[(group + turn) % contenders.size()], questions, begin, end, arguments);
        progress.update(static_cast<std::int64_t>(end));
    }
}

std::vector<Contender> load_contenders(const CompareArguments& arguments, const LlamaModel& model) {
    std::vector<std::string> names = arguments.drafters;
    if (std::find(names.begin(), names.end(), "none") == names.end()) names.insert(names.begin(), "none");
    std::vector<Contender> contenders;
    contenders.reserve(names.size() * arguments.nodes.size());
    std::string kinds;
    for (const std::string& name : names) {
        for (const std::optional<std::int64_t>& nodes : arguments.nodes) {
            auto drafter = load_drafter(name, model, arguments.model, arguments.decoding);
            (kinds += kinds.empty() ? "" : "+") += drafter->kind();
            DecodingArguments decoding = arguments.decoding;
            decoding.nodes = nodes;
            if (name == "none") decoding.accept = "match";  // the target's own text, whatever is compared with it
            contenders.push_back({name, nodes, make_decoder(model, std::move(drafter), decoding)});
            if (name == "none") break;  // has no trees, of whatever size
        }
    }
    check_tree(arguments.decoding.tree, kinds);
    return contenders;
}

}  // namespace

int run(const CompareArguments& arguments) {
    const std::vector<PromptRow> prompt_rows = read_prompts(arguments.prompts, arguments.limit);
    refuse_inputs("--json", arguments.json, {arguments.prompts, arguments.model.path});
    ReportFile json("--json", arguments.json, ReportFile::Partial::removed);
    const LlamaModel model = load_model(arguments.model);
    Questions questions;
    for (const PromptRow& row : prompt_rows) {
        questions.ids.push_back(row.id);
        questions.prompts.push_back(make_prompt(model, row, arguments.model.raw));
        questions.samples.push_back(row.sample);
    }
    std::vector<Contender> contenders = load_contenders(arguments, model);
    run_all(contenders, questions, arguments.decoding);

    const TextPromise promise =
        promise_at(policy_info(arguments.decoding.accept), arguments.decoding.generation.temperature);
    const auto is_plain = [](const Contender& contender) { return contender.name == "none"; };
    const Contender& plain = *std::find_if(contenders.begin(), contenders.end(), is_plain);
    std::vector<Row> rows;
    nlohmann::ordered_json report = {{"settings", settings(arguments, model, prompt_rows.size())}, {"rows", nullptr}};
    report["rows"] = nlohmann::ordered_json::array();
    for (Contender& contender : contenders) {
        rows.push_back(summarise(contender.name, std::string(contender.decoder.drafter().kind()), questions.ids,
                                 plain.outcomes, contender.outcomes));
        Row& row = rows.back();
        row.nodes = contender.nodes;
        if (contender.name == "none") row.nodes = 0;
        if (contender.name != "none") row.promise = promise;
        if (row.promise == TextPromise::same_law) row.differences.clear();  // other draws, not differences
        if (row.promise == TextPromise::same_text && arguments.decoding.generation.temperature == 0.0)
            add_logit_gaps(row, model, questions, plain, contender);
        report["rows"].push_back(to_json(row));
        report["rows"].back()["weight_bytes"] = contender.decoder.drafter().weight_bytes();
        report["rows"].back()["prompts"] = prompts_to_json(questions.ids, contender.outcomes);
    }
    json.write_line(to_text(std::move(report), 2));
    json.finish();  // before the table: a terminal that is gone loses no report
    if (arguments.json != "-") print(to_table(rows));
    return 0;
}

}  // namespace outrider::cli
