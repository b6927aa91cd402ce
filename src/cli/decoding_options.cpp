// Options of the commands that decode: sampling, trees, policies. Their ranges are the library's.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <string>
#include <string_view>

#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/engine/make_policy.hpp>

#include "numbers.hpp"
#include "option_groups.hpp"

namespace outrider::cli {
namespace {

constexpr const char* kSeedHelp =
    "A sampled text is a function of target, prompt, options and this number: not of the prompt's row in a file, of "
    "the "
    "drafter, or of what is decoded beside it. Equal rows get equal texts, unless their `sample` differs";

/// Whether trees are made of the drafter's draws.
bool sampled(const DecodingArguments& decoding) {
    if (decoding.tree != "auto") return decoding.tree == "sampled";
    const auto policy = std::ranges::find(policies(), decoding.accept, &PolicyInfo::name);
    return policy != policies().end() && policy->needs_draws;
}

std::string nodes_or_auto(const std::string& text, std::optional<std::int64_t>& nodes) {
    nodes = std::nullopt;
    if (text == "auto") return {};
    nodes = read_number<std::int64_t>(text);
    if (nodes && ranges::kNodes.holds(*nodes)) return {};
    return fmt::format("expected auto or {}, got '{}'", ranges::kNodes.words(), text);
}

}  // namespace

void add_sampling(CLI::App& app, DecodingArguments& decoding, std::int64_t max_tokens) {
    GenerationOptions& options = decoding.generation;
    options.max_tokens = max_tokens;
    app.add_option("-n,--max-tokens", options.max_tokens, "Most tokens of one answer")
        ->transform(within(Range<std::int64_t>{.low = 1, .high = ranges::kMaxTokens.high}))  // none is no answer
        ->type_name("N")
        ->capture_default_str();
    app.add_option("--temperature", options.temperature, "0: greedy")
        ->transform(within(ranges::kTemperature))
        ->capture_default_str();
    app.add_option("--top-p", options.top_p, "Sample from the smallest set of this probability")
        ->transform(within(ranges::kTopP))
        ->capture_default_str();
    app.add_option("--top-k", options.top_k, "Sample from this many tokens; 0: all")
        ->transform(within(ranges::kTopK))
        ->capture_default_str();
    app.add_option("--min-p", options.min_p, "Drop tokens below this part of the best one's probability")
        ->transform(within(ranges::kMinP))
        ->capture_default_str();
    app.add_option("--repetition-penalty", options.repetition_penalty, "Above 1: against words already used")
        ->transform(within(ranges::kRepetitionPenalty))
        ->capture_default_str();
    options.seed = 0;  // a program says the same again unless it is told otherwise
    app.add_option("--seed", *options.seed, kSeedHelp)
        ->transform(within(Range<std::uint64_t>{}))
        ->capture_default_str();
    const auto stop = [](std::string& text) {
        try {
            check_stop(text);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string();
    };
    app.add_option("--stop", options.stop, "A string that ends the text; may be given several times")
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false)
        ->check(CLI::Validator(stop, ""));
}

void add_logprobs(CLI::App& app, DecodingArguments& decoding) {
    GenerationOptions& options = decoding.generation;
    auto* most = app.add_option("--logprobs", options.logprobs,
                                "Show each token's log-probability, and those of so many most probable ones")
                     ->transform(within(ranges::kLogprobs))
                     ->type_name("N");
    const std::map<std::string, LogprobLaw> laws{{"target", LogprobLaw::target}, {"warped", LogprobLaw::warped}};
    app.add_option("--logprob-law", options.logprob_law,
                   "target: of the target's own law; warped: of what the tokens were chosen from")
        ->transform(CLI::CheckedTransformer(laws))
        ->type_name("target|warped")
        ->default_str("target")
        ->needs(most);
}

void add_batch(CLI::App& app, DecodingArguments& decoding) {
    app.add_option("-b,--batch", decoding.batch, "Prompts decoded together")
        ->transform(within(ranges::kBatch))
        ->capture_default_str();
}

void add_tree(CLI::App& app, DecodingArguments& decoding, Conditions& conditions) {
    app.add_option("--tree", decoding.tree,
                   "How a drafter that has a law makes trees; measured: by a Medusa's or Hydra's measured accuracies; "
                   "per-frame: CTC without collapse; auto: sampled where the policy needs draws, else best-first")
        ->check(CLI::IsMember({"auto", "best-first", "static", "per-frame", "measured", "sampled"}))
        ->capture_default_str();
    auto* chains = app.add_option("--chains", decoding.chains, "Chains of a sampled tree; 0: as suits the policy")
                       ->transform(within(Range<std::int64_t>{.low = 0, .high = 64}))
                       ->capture_default_str();
    conditions.only_if(
        chains, [&decoding] { return decoding.chains == 0 || sampled(decoding); },
        [&decoding] {
            return fmt::format("belongs to sampled trees, not to --tree {} with --accept {}", decoding.tree,
                               decoding.accept);
        });
}

namespace {

CLI::Option* nodes_checked(CLI::Option* option) {
    const auto check = [](std::string& text) {
        std::optional<std::int64_t> nodes;
        return nodes_or_auto(text, nodes);
    };
    return option->check(CLI::Validator(check, ""))->type_name("N|auto")->default_str("auto");
}

void add_pass_times(CLI::App& app, DecodingArguments& decoding) {
    app.add_option("--pass-times", decoding.pass_times,
                   "File where auto remembers what passes cost here; default: in the user's cache folder; none")
        ->type_name("FILE")
        ->capture_default_str();
}

constexpr const char* kNodesHelp =
    "Nodes of a draft tree; auto: as many as pay on this machine, none where drafting does not";

}  // namespace

void add_nodes(CLI::App& app, DecodingArguments& decoding, Conditions& conditions) {
    nodes_checked(app.add_option_function<std::string>(
        "--nodes", [&decoding](const std::string& text) { (void)nodes_or_auto(text, decoding.nodes); }, kNodesHelp));
    add_pass_times(app, decoding);
    add_tree(app, decoding, conditions);
}

void add_nodes_list(CLI::App& app, CompareArguments& a, Conditions& conditions) {
    const auto read = [&a](const std::vector<std::string>& texts) {
        a.nodes.clear();
        for (const std::string& text : texts) {
            std::optional<std::int64_t> nodes;
            (void)nodes_or_auto(text, nodes);
            if (std::ranges::find(a.nodes, nodes) == a.nodes.end()) a.nodes.push_back(nodes);
        }
    };
    nodes_checked(app.add_option_function<std::vector<std::string>>(
                      "--nodes", read, std::string(kNodesHelp) + "; several, with commas between, for a row each"))
        ->take_all()
        ->delimiter(',');
    add_pass_times(app, a.decoding);
    add_tree(app, a.decoding, conditions);
}

namespace {

/// `of`: marks an option as that of some policies.
void add_lossy(CLI::App& app, PolicyOptions& o, const auto& of) {
    of({"lossy_typical"}, app.add_option("--typical-eps", o.typical.eps, "lossy_typical: the largest threshold"))
        ->transform(within(ranges::kTypicalEps))
        ->capture_default_str();
    of({"lossy_typical"},
       app.add_option("--typical-delta", o.typical.delta, "lossy_typical: threshold over exp(-entropy)"))
        ->transform(within(ranges::kTypicalDelta))
        ->capture_default_str();
    of({"lossy_top_k", "lossy_top_beta"}, app.add_option_function<std::size_t>(
                                              "--accept-top", [&o](std::size_t n) { o.top_k = o.top_beta.beta = n; },
                                              "lossy_top_k, lossy_top_beta: accept what is among the N most probable"))
        ->transform(within(ranges::kAcceptTop))
        ->default_str("3");
    of({"lossy_top_beta"},
       app.add_option("--accept-gap", o.top_beta.tau, "lossy_top_beta: and at most so many nats below the best"))
        ->transform(within(ranges::kAcceptGap))
        ->capture_default_str();
    of({"lossy_distance"},
       app.add_option("--accept-distance", o.distance, "lossy_distance: accept ids this near the best one's"))
        ->transform(within(ranges::kAcceptDistance))
        ->capture_default_str();
    of({"lossy_typical", "lossy_top_k", "lossy_distance", "lossy_top_beta"},
       app.add_option("--minimum-block", o.minimum_block, "Lossy policies: tokens of a round that are not asked about"))
        ->transform(within(ranges::kMinimumBlock))
        ->capture_default_str();
}

}  // namespace

void add_policy(CLI::App& app, DecodingArguments& decoding, Conditions& conditions) {
    std::vector<std::string> names;
    for (const PolicyInfo& policy : policies()) names.emplace_back(policy.name);
    PolicyOptions& o = decoding.policy;
    app.add_option("--accept", decoding.accept,
                   "Acceptance policy; what begins with lossy changes the text, the others keep the target's law")
        ->check(CLI::IsMember(names))
        ->capture_default_str();
    using Policies = std::vector<std::string_view>;
    const auto of = [&](Policies own, CLI::Option* option) {
        conditions.only_if(
            option, [=, &decoding] { return std::ranges::find(own, decoding.accept) != own.end(); },
            [=, &decoding] {
                return fmt::format("belongs to --accept {}, not to {}", fmt::join(own, " or "), decoding.accept);
            });
        return option;
    };
    add_lossy(app, o, of);
}

}  // namespace outrider::cli
