// The command line of `outrider`: every command and option, its default, its range and its help.
#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <memory>
#include <sstream>
#include <system_error>

#include <outrider/core/version.hpp>

namespace outrider::cli {
namespace {

// Every number of the command line has a range; what is outside is wrong usage (exit status 2). `range` says it in words.
template <typename Inside>
CLI::Validator number(const char* range, Inside inside) {
    const auto check = [=](std::string& text) {
        std::istringstream in(text);
        double value = 0;
        const bool read = in >> value && in.eof();
        return read && inside(value) ? std::string() : fmt::format("expected {}, got '{}'", range, text);
    };
    return CLI::Validator(check, "");
}

// The same for whole numbers.
CLI::Validator whole(std::int64_t low, std::int64_t high = std::numeric_limits<std::int32_t>::max()) {
    const auto check = [=](std::string& text) {
        std::int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool read = error == std::errc() && end == text.data() + text.size();
        return read && value >= low && value <= high
                   ? std::string()
                   : fmt::format("expected a whole number from {} to {}, got '{}'", low, high, text);
    };
    return CLI::Validator(check, "");
}

void add_template(CLI::App& app, std::string& name, std::string& file) {
    auto* by_name = app.add_option("--template", name, "Built-in chat template by name, instead of the model's own")
                        ->check(CLI::IsMember({"chatml", "llama2", "llama3", "mistral", "vicuna", "zephyr"}));
    app.add_option("--template-file", file, "Chat template (Jinja) from a file, instead of the model's own")
        ->type_name("FILE")
        ->excludes(by_name);
}

void add_model(CLI::App& app, ModelArguments& model) {
    app.add_option("-m,--model", model.path, "GGUF file or Hugging Face folder of the target")->required();
    app.add_option("--weights", model.weights, "How the matrices are held")
        ->check(CLI::IsMember({"auto", "stored", "bf16", "f32", "int8"}))
        ->capture_default_str();
    app.add_option("--device", model.device, "cpu, cuda or cuda:N")
        ->check(CLI::Validator(
            [](std::string& text) {
                const bool known = text == "cpu" || text == "cuda" ||
                                   (text.starts_with("cuda:") && std::string(text, 5).find_first_not_of("0123456789") ==
                                                                     std::string::npos && text.size() > 5);
                return known ? std::string() : fmt::format("expected cpu, cuda or cuda:N, got '{}'", text);
            },
            ""))
        ->capture_default_str();
    app.add_option("--threads", model.threads, "Threads of the target pass; 0: one per physical core")
        ->check(whole(0, 1024))
        ->capture_default_str();
    add_template(app, model.chat_template, model.template_file);
}

void add_raw(CLI::App& app, ModelArguments& model) {
    app.add_flag("--raw", model.raw, "Take the prompt as text to continue, without a chat template")
        ->excludes("--template")
        ->excludes("--template-file");
}

void add_sampling(CLI::App& app, DecodingArguments& decoding, std::int64_t max_tokens) {
    GenerationOptions& options = decoding.generation;
    options.max_tokens = max_tokens;
    app.add_option("-n,--max-tokens", options.max_tokens, "Most tokens of one answer")
        ->check(whole(1))
        ->type_name("N")
        ->capture_default_str();
    app.add_option("--temperature", options.temperature, "0: greedy")->check(number("a number of at least 0", [](double x) { return x >= 0 && x <= 1e9; }))->capture_default_str();
    app.add_option("--top-p", options.top_p, "Sample from the smallest set of this probability")
        ->check(number("a number above 0, at most 1", [](double x) { return x > 0 && x <= 1; }))
        ->capture_default_str();
    app.add_option("--top-k", options.top_k, "Sample from this many tokens; 0: all")
        ->check(whole(0))
        ->capture_default_str();
    app.add_option("--min-p", options.min_p, "Drop tokens below this part of the best one's probability")
        ->check(number("a number from 0 to 1", [](double x) { return x >= 0 && x <= 1; }))
        ->capture_default_str();
    app.add_option("--repetition-penalty", options.repetition_penalty, "Above 1: against words already used")
        ->check(number("a number above 0", [](double x) { return x > 0 && x <= 1e6; }))
        ->capture_default_str();
    options.seed = 0;  // a program says the same again unless it is told otherwise
    app.add_option("--seed", *options.seed, "The text is a function of target, prompt and seed")->capture_default_str();
    app.add_option("--stop", options.stop, "A string that ends the text; may be given several times")
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false);
}

void add_batch(CLI::App& app, DecodingArguments& decoding) {
    app.add_option("-b,--batch", decoding.batch, "Prompts decoded together")
        ->check(whole(1, 4096))
        ->capture_default_str();
}

void add_nodes(CLI::App& app, DecodingArguments& decoding) {
    app.add_option_function<std::string>(
           "--nodes",
           [&decoding](const std::string& text) {
               decoding.nodes = text == "auto" ? std::nullopt : std::optional<std::int64_t>(std::stoll(text));
           },
           "Nodes of a draft tree; auto: as many as pay on this machine, none where drafting does not")
        ->check(CLI::Validator(
            [](std::string& text) {
                return text == "auto" || whole(0, 4096)(text).empty()
                           ? std::string()
                           : fmt::format("expected auto or a whole number from 0 to 4096, got '{}'", text);
            },
            ""))
        ->type_name("N|auto")
        ->default_str("auto");
    app.add_option("--pass-times", decoding.pass_times,
                   "File where auto remembers what passes cost here; default: in the user's cache folder; none")
        ->type_name("FILE")
        ->capture_default_str();
    app.add_option("--tree", decoding.tree,
                   "How a drafter that has a law makes trees; measured: by a Medusa's or Hydra's measured accuracies; "
                   "per-frame: CTC without collapse; auto: sampled where the policy needs draws, else best-first")
        ->check(CLI::IsMember({"auto", "best-first", "static", "per-frame", "measured", "sampled"}))
        ->capture_default_str();
    app.add_option("--chains", decoding.chains, "Chains of a sampled tree; 0: as suits the policy")
        ->check(whole(0, 64))
        ->capture_default_str();
}

void add_policy(CLI::App& app, DecodingArguments& decoding) {
    std::vector<std::string> names;
    for (const PolicyInfo& policy : policies()) names.emplace_back(policy.name);
    PolicyOptions& o = decoding.policy;
    app.add_option("--accept", decoding.accept,
                   "Acceptance policy; what begins with lossy changes the text, the others keep the target's law")
        ->check(CLI::IsMember(names))
        ->capture_default_str();
    const auto not_negative = number("a number of at least 0", [](double x) { return x >= 0; });
    app.add_option("--typical-eps", o.typical.eps, "lossy_typical: the largest threshold")
        ->check(number("a number from 0 to 1", [](double x) { return x >= 0 && x <= 1; }))
        ->capture_default_str();
    app.add_option("--typical-delta", o.typical.delta, "lossy_typical: threshold over exp(-entropy)")
        ->check(not_negative)
        ->capture_default_str();
    app.add_option_function<std::int64_t>(
           "--accept-top",
           [&o](std::int64_t n) { o.top_k = o.top_beta.beta = static_cast<std::size_t>(n); },
           "lossy_top_k, lossy_top_beta: accept what is among the N most probable")
        ->check(whole(1))
        ->default_str("3");
    app.add_option("--accept-gap", o.top_beta.tau, "lossy_top_beta: and at most so many nats below the best")
        ->check(not_negative)
        ->capture_default_str();
    app.add_option("--accept-distance", o.distance, "lossy_distance: accept ids this near the best one's")
        ->check(whole(0))
        ->capture_default_str();
    app.add_option("--minimum-block", o.minimum_block, "Lossy policies: tokens of a round that are not asked about")
        ->check(whole(1, 4096))
        ->capture_default_str();
}

void add_limit(CLI::App& app, std::int64_t& limit) {
    app.add_option("--limit", limit, "Use the first N prompts only; 0: all")
        ->check(whole(0))
        ->type_name("N");
}

constexpr const char* kPromptsHelp = "JSON lines with `prompt`, `turns` or `messages`, and an `id`; -: standard input";
constexpr const char* kDrafterHelp = "none, ngram, ngram:copy, ngram:maxgram, a drafter's folder, lm:CHECKPOINT, or several joined with +";

void add_generate(CLI::App& app, GenerateArguments& a) {
    add_model(app, a.model);
    add_raw(app, a.model);
    app.add_option("-d,--drafter", a.drafter,
                   std::string(kDrafterHelp) + "; default: the best one shipped for the model, else ngram");
    auto* prompt = app.add_option("-p,--prompt", a.prompt, "The prompt; without it and --prompts, standard input");
    app.add_option("--prompts", a.prompts, kPromptsHelp)->excludes(prompt);
    add_limit(app, a.limit);
    add_sampling(app, a.decoding, 128);
    add_nodes(app, a.decoding);
    add_policy(app, a.decoding);
    add_batch(app, a.decoding);
    app.add_option("--json", a.json, "One JSON line per prompt into this file; -: standard output instead of texts");
}

void add_compare(CLI::App& app, CompareArguments& a) {
    add_model(app, a.model);
    add_raw(app, a.model);
    app.add_option("-d,--drafters", a.drafters,
                   std::string(kDrafterHelp) + "; several, with commas between. `none`, the baseline, always runs")
        ->required()
        ->take_all()
        ->delimiter(',');
    app.add_option("--prompts", a.prompts, kPromptsHelp)->required();
    add_limit(app, a.limit);
    add_sampling(app, a.decoding, 128);
    add_nodes(app, a.decoding);
    add_policy(app, a.decoding);
    add_batch(app, a.decoding);
    app.add_option("--json", a.json, "Settings and rows as JSON into this file; -: standard output instead of the table");
}

void add_distill(CLI::App& app, DistillArguments& a) {
    add_model(app, a.model);
    auto* source = app.add_option_group("source", "Where prompts come from");
    source->add_option("--prompts", a.prompts, kPromptsHelp);
    source->add_option("--self-prompts", a.self_prompts,
                       "No prompts at hand: answer N that the target makes up itself, those in the output counted")
        ->check(whole(1))
        ->type_name("N");
    source->require_option(1);
    app.add_option("--prompt-temperature", a.prompt_temperature, "Of --self-prompts; higher: more varied, less sensible")
        ->check(number("a number above 0", [](double x) { return x > 0 && x <= 100; }))
        ->capture_default_str();
    app.add_option("--exclude", a.exclude,
                   "Prompts files to measure on: made-up prompts that share words with them in a row are dropped")
        ->take_all();
    app.add_option("-o,--output", a.output, "JSON lines to train on; prompts that it holds already are skipped")
        ->required();
    add_limit(app, a.limit);
    add_sampling(app, a.decoding, 256);
    a.decoding.batch = 32;
    add_batch(app, a.decoding);
}

CLI::Validator above_zero() {
    return number("a number above 0", [](double x) { return x > 0 && x <= 1e9; });
}

CLI::Validator at_most_one() {
    return number("a number above 0, at most 1", [](double x) { return x > 0 && x <= 1; });
}

CLI::Validator share() {
    return number("a number from 0 to 1", [](double x) { return x >= 0 && x <= 1; });
}

void add_text_to_train(CLI::App& app, TrainArguments& a) {
    app.add_option("--data", a.data, "JSON lines made by `outrider distill`; may be given several times")
        ->required()
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false);
    app.add_flag("--greedy-only", a.greedy_only, "Leave out answers that were sampled");
    app.add_option("--limit", a.limit, "Take N conversations only; 0: all")->check(whole(0))->type_name("N");
    app.add_option("--most-tokens", a.most_tokens, "Leave out longer conversations (default: 768)")
        ->check(whole(4))
        ->type_name("N");
    app.add_option("--held-out", a.held_out, "Conversations set aside to measure on (default: 128)")->check(whole(1));
    app.add_option("--features", a.features, "Where the target's features are kept (default: in the output folder)");
    app.add_flag("--stored-features", a.stored_features, "Leave out conversations whose features are not there yet");
    app.add_flag("--features-only", a.features_only, "Compute the features that are missing, and end");
}

void add_schedule(CLI::App& app, TrainArguments& a) {
    app.add_option("--minutes", a.minutes, "Train this long; a resumed run counts what it had (default: 60)")
        ->check(above_zero());
    app.add_option("--anchors", a.anchors, "Train on so many positions instead; such a run repeats exactly")
        ->check(whole(0, std::numeric_limits<std::int64_t>::max()));
    app.add_flag("--resume", a.resume, "Go on from the checkpoint in the output folder");
    app.add_option("--from", a.from, "Drafter folder to start from: its weights and vocabulary, a fresh schedule");
    app.add_option("--learning-rate", a.learning_rate, "Highest rate (default: 0.001)")->check(at_most_one());
    app.add_option("--warmup", a.warmup, "Part of the run that the rate rises over (default: 0.01)")->check(share());
    app.add_option("--final-rate", a.final_rate, "Rate at the end, of the highest (default: 0.02)")->check(share());
    app.add_option("--weight-decay", a.weight_decay, "Of matrices (default: 0.01)")->check(share());
    app.add_option("--clip", a.clip, "Largest norm of the gradient (default: 1)")->check(above_zero());
    app.add_option("--ema", a.ema, "Decay of the averaged weights, which are what is kept (default: 0.999)")
        ->check(number("a number from 0 to below 1", [](double x) { return x >= 0 && x < 1; }));
    app.add_option("--batch-anchors", a.batch_anchors, "Positions a step (default: 256)")->check(whole(1));
    app.add_option("--group-anchors", a.group_anchors, "Positions of one conversation in a step (default: by kind)")
        ->check(whole(1));
    app.add_flag("--f32", a.f32, "Products in float32 where bfloat16 is faster");
    app.add_option("--seed", a.seed, "Of initial weights and of the order of the data")->capture_default_str();
    app.add_option("--report-seconds", a.report_seconds, "Time between lines of progress (default: 20)")
        ->check(above_zero());
    app.add_option("--checkpoint-minutes", a.checkpoint_minutes, "Between checkpoints (default: 4)")
        ->check(above_zero());
    app.add_option("--evaluate-minutes", a.evaluate_minutes, "Between held-out measurements (default: 8)")
        ->check(above_zero());
    app.add_option("--evaluate-conversations", a.evaluate_conversations, "Held-out texts of each (default: 24)")
        ->check(whole(1));
}

// Options that some kinds of drafters have; given with another kind they are wrong usage.
void add_sizes(CLI::App& app, TrainArguments& a) {
    using Kinds = std::vector<std::string>;
    auto table = std::make_shared<std::vector<std::pair<CLI::Option*, Kinds>>>();
    const auto of = [table](Kinds kinds, CLI::Option* option) {
        option->group(fmt::format("Sizes and loss of {}", fmt::join(kinds, ", ")));
        table->emplace_back(option, std::move(kinds));
        return option;
    };
    const Kinds ctc{"ctc"}, heads{"medusa", "hydra"}, hydra{"hydra"}, layer{"ctc", "hydra"};
    app.add_option("--vocabulary", a.vocabulary, "Tokens that the drafter can name (default: 4096)")->check(whole(1));
    app.add_option("--label-decay", a.label_decay, "Weight of each label over the one before (default: 0.8)")
        ->check(at_most_one());
    app.add_option("--teacher", a.teacher,
                   "Share of the target's own distribution in the loss, beside its text (default: 0)")
        ->check(share());
    of(ctc, app.add_option("--loss", a.loss, "ctc: the paper's (default: prefix)"))
        ->check(CLI::IsMember({"prefix", "ctc"}));
    of(ctc, app.add_option("--conditioning", a.conditioning,
                           "What frames know of the drafted prefix; none: the paper's way (default: prefix)"))
        ->check(CLI::IsMember({"prefix", "none"}));
    of(ctc, app.add_option("--frames", a.frames, "Frames of one pass (default: 8)"))->check(whole(1, 64));
    of(ctc, app.add_option("--labels", a.labels, "Tokens of the text that a position's loss looks at (default: 6)"))
        ->check(whole(1, 15));
    of(ctc, app.add_option("--feature-layers", a.feature_layers,
                           "Read the hidden states after these layers of the model as well, as in 4,16,27"))
        ->delimiter(',')
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false)
        ->check(whole(1, 4096))
        ->type_name("LAYERS");
    of(ctc, app.add_option("--layers", a.layers, "Decoder layers that frames go through (default: 1)"))->check(whole(1, 16));
    of(ctc, app.add_option("--prefix-rank", a.prefix_rank, "Width of the prediction network (default: 1024)"))
        ->check(whole(1));
    of(ctc, app.add_option("--prefix-bottleneck", a.prefix_bottleneck,
                           "Width of what the prediction network's output rows see; 0, or no less than the network: as "
                           "wide as that (default: 256)"))
        ->check(whole(0));
    of(heads, app.add_option("--draft-heads", a.draft_heads, "Depth of drafts (default: medusa 5, hydra 4)"))
        ->check(whole(1, 15));
    of(heads, app.add_option("--blocks", a.blocks, "Layers of each head (default: 1)"))->check(whole(1, 64));
    app.add_option("--output-rows", a.output_rows,
                   "Output matrix: one a head, one for all, or the target's frozen one; of CTC's prediction network: "
                   "own or target (default: medusa shared, else target)")
        ->check(CLI::IsMember({"own", "shared", "target"}));
    of(hydra, app.add_option("--prefix-layer", a.prefix_layer, "Hydra++: a decoder layer over the text (default: on)"))
        ->check(CLI::IsMember({"on", "off"}));
    of(hydra, app.add_option("--residual", a.residual,
                             "What a head's first layer adds to: the feature, or a matrix of all it sees, as published "
                             "(default: feature)"))
        ->check(CLI::IsMember({"feature", "matrix"}));
    of(hydra, app.add_flag("--output-bias", a.output_bias, "A bias beside own or shared output matrices, as published"));
    of(layer, app.add_option("--attention-heads", a.attention_heads, "Of the decoder layer (default: by hidden size)"))
        ->check(whole(1, 1024));
    of(layer, app.add_option("--kv-heads", a.kv_heads, "Of the decoder layer (default: a third of its heads)"))
        ->check(whole(1, 1024));
    of(layer, app.add_option("--intermediate", a.intermediate, "Of its MLP (default: 8/3 of hidden)"))->check(whole(1));
    app.parse_complete_callback([table, &a] {
        for (const auto& [option, kinds] : *table)
            if (option->count() > 0 && std::find(kinds.begin(), kinds.end(), a.kind) == kinds.end())
                throw CLI::ValidationError(option->get_name(), fmt::format("belongs to {}, not to {}",
                                                                           fmt::join(kinds, " and "), a.kind));
    });
}

void add_train(CLI::App& app, TrainArguments& a) {
    add_model(app, a.model);
    app.add_option("--kind", a.kind, "Kind of drafter; hydra with its prefix layer is Hydra++")
        ->required()
        ->check(CLI::IsMember({"ctc", "medusa", "hydra"}));
    app.add_option("-o,--output", a.output, "Folder of the drafter; its checkpoint goes there too")->required();
    add_text_to_train(app, a);
    add_schedule(app, a);
    add_sizes(app, a);
}

void add_inspect(CLI::App& app, InspectArguments& a) {
    add_model(app, a.model);
    add_raw(app, a.model);
    app.add_option("-d,--drafter", a.drafter, kDrafterHelp)->required();
    app.add_option("-p,--prompt", a.prompt, "The prompt")->required();
    add_sampling(app, a.decoding, 64);
    add_nodes(app, a.decoding);
    add_policy(app, a.decoding);
}

void add_tokenize(CLI::App& app, TokenizeArguments& a) {
    app.add_option("-m,--model", a.model, "GGUF file or Hugging Face folder")->required();
    auto* chat = app.add_flag("--chat", a.chat, "Lines are conversations: {\"messages\": [...], \"tools\": [...], ...}");
    add_template(app, a.chat_template, a.template_file);
    app.get_option("--template")->needs(chat);
    app.get_option("--template-file")->needs(chat);
}

}  // namespace

std::variant<Command, int> parse(int argc, const char* const* argv) {
    CLI::App app("Speculative decoding: a drafter rides ahead, the target keeps what it would have said anyway.",
                 "outrider");
    app.set_version_flag("--version", kVersion);
    app.require_subcommand(1);
    app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // scripts append, the last word counts
    app.get_formatter()->column_width(34);
    std::optional<Command> chosen;
    const auto command = [&]<typename A>(const char* name, const char* help, void (*add)(CLI::App&, A&)) {
        CLI::App* sub = app.add_subcommand(name, help);
        auto arguments = std::make_shared<A>();
        add(*sub, *arguments);
        sub->callback([&chosen, arguments] { chosen = *arguments; });
    };
    command("generate", "Answer prompts", add_generate);
    command("compare", "Run several drafters over the same prompts and tabulate what they gain", add_compare);
    command("distill", "Make text with the target itself, to train drafters on", add_distill);
    command("train", "Train a drafter", add_train);
    command("inspect", "Draw each round's draft tree, accepted path marked", add_inspect);
    command("tokenize", "JSON strings on stdin, one a line, to ids and the text they decode to", add_tokenize);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    return *chosen;
}

}  // namespace outrider::cli
