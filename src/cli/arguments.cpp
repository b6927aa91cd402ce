// The command line of `outrider`: every command and option, its default, its range and its help.
#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <memory>

#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/core/detail/version.hpp>

#include "conditions.hpp"
#include "numbers.hpp"
#include "option_groups.hpp"
#include "output.hpp"

namespace outrider::cli {
namespace {

void add_template(CLI::App& app, std::string& name, std::string& file) {
    auto* by_name = app.add_option("--template", name, "Built-in chat template by name, instead of the model's own")
                        ->check(CLI::IsMember({"chatml", "llama2", "llama3", "mistral", "vicuna", "zephyr"}));
    app.add_option("--template-file", file, "Chat template (Jinja) from a file, instead of the model's own")
        ->type_name("FILE")
        ->excludes(by_name);
}

CLI::Validator known_device() {
    return CLI::Validator(
        [](const std::string& text) {
            const bool known = text == "cpu" || text == "cuda" ||
                               (text.starts_with("cuda:") && text.size() > 5 &&
                                text.find_first_not_of("0123456789", 5) == std::string::npos);
            return known ? std::string() : fmt::format("expected cpu, cuda or cuda:N, got '{}'", text);
        },
        "");
}

}  // namespace

void add_model(CLI::App& app, ModelArguments& model) {
    app.add_option("-m,--model", model.path, "GGUF file or Hugging Face folder of the target")->required();
    app.add_option("--weights", model.weights, "How the matrices are held")
        ->check(CLI::IsMember({"auto", "stored", "bf16", "f32", "int8"}))
        ->capture_default_str();
    app.add_option("--device", model.device, "cpu, cuda or cuda:N")->check(known_device())->capture_default_str();
    app.add_option("--threads", model.threads, "Threads of the target pass; 0: one per physical core")
        ->transform(within(ranges::kThreads))
        ->capture_default_str();
    add_template(app, model.chat_template, model.template_file);
}

namespace {

void add_raw(CLI::App& app, ModelArguments& model) {
    app.add_flag("--raw", model.raw, "Take the prompt as text to continue, without a chat template")
        ->excludes("--template")
        ->excludes("--template-file");
}

CLI::Option* add_limit(CLI::App& app, std::int64_t& limit) {
    return app.add_option("--limit", limit, "Use the first N prompts only; 0: all")
        ->transform(within(Range<std::int64_t>{.low = 0}))
        ->type_name("N");
}

constexpr const char* kPromptsHelp =
    "JSON lines with `prompt`, `turns` or `messages`, an `id`, and `sample` N for another draw of a prompt asked "
    "before; "
    "-: standard input";
constexpr const char* kDrafterHelp =
    "none, ngram, ngram:copy, ngram:maxgram, a drafter's folder, lm:CHECKPOINT, or several joined with +";

void add_drafter_device(CLI::App& app, ModelArguments& model) {
    app.add_option("--drafter-device", model.drafter_device,
                   "Where drafters compute: cpu, cuda or cuda:N; default: --device")
        ->check(known_device());
}

void add_generate(CLI::App& app, GenerateArguments& a) {
    Conditions conditions(app);
    add_model(app, a.model);
    add_drafter_device(app, a.model);
    add_raw(app, a.model);
    app.add_option("-d,--drafter", a.drafter,
                   std::string(kDrafterHelp) + "; default: the best one shipped for the model, else ngram");
    auto* prompt = app.add_option("-p,--prompt", a.prompt, "The prompt; without it and --prompts, standard input");
    auto* file = app.add_option("--prompts", a.prompts, kPromptsHelp)->excludes(prompt);
    add_limit(app, a.limit)->needs(file);
    add_sampling(app, a.decoding, 128);
    add_nodes(app, a.decoding, conditions);
    add_policy(app, a.decoding, conditions);
    add_batch(app, a.decoding);
    add_logprobs(app, a.decoding);
    app.add_option("--json", a.json, "One JSON line per prompt into this file; -: standard output instead of texts");
}

void add_compare(CLI::App& app, CompareArguments& a) {
    Conditions conditions(app);
    add_model(app, a.model);
    add_drafter_device(app, a.model);
    add_raw(app, a.model);
    app.add_option("-d,--drafters", a.drafters,
                   std::string(kDrafterHelp) + "; several, with commas between. `none`, the baseline, always runs")
        ->required()
        ->take_all()
        ->delimiter(',');
    app.add_option("--prompts", a.prompts, kPromptsHelp)->required();
    add_limit(app, a.limit);
    add_sampling(app, a.decoding, 128);
    add_nodes_list(app, a, conditions);
    add_policy(app, a.decoding, conditions);
    add_batch(app, a.decoding);
    app.add_option("--json", a.json,
                   "Settings and rows as JSON into this file; -: standard output instead of the table");
}

void add_distill(CLI::App& app, DistillArguments& a) {
    Conditions conditions(app);
    add_model(app, a.model);
    add_raw(app, a.model);
    auto* source = app.add_option_group("source", "Where prompts come from");
    auto* file = source->add_option("--prompts", a.prompts, kPromptsHelp);
    auto* self = source
                     ->add_option("--self-prompts", a.self_prompts,
                                  "No prompts at hand: answer N that the target makes up itself, those in the output "
                                  "counted; with --raw, beginnings of texts")
                     ->transform(within(Range<std::int64_t>{.low = 1}))
                     ->type_name("N");
    source->require_option(1);
    const Range<double> warm{.low = ranges::kTemperature.low, .high = ranges::kTemperature.high};
    app.add_option("--prompt-temperature", a.prompt_temperature,
                   "Of --self-prompts; higher: more varied, less sensible")
        ->transform(within(warm))
        ->capture_default_str()
        ->needs(self);
    auto* prompt_tokens =
        app.add_option("--prompt-tokens", a.prompt_tokens,
                       "Of --self-prompts with --raw: tokens of a text that are drawn before it is continued")
            ->transform(within(Range<std::int64_t>{.low = 1}))
            ->type_name("N")
            ->capture_default_str()
            ->needs(self);
    conditions.only_if(prompt_tokens, [&a] { return a.model.raw; }, [] { return std::string("needs --raw"); });
    app.add_option("--exclude", a.exclude,
                   "Prompts files to measure on: made-up prompts that share words with them in a row are dropped")
        ->take_all()
        ->needs(self);
    app.add_option("-o,--output", a.output, "JSON lines to train on; prompts that it holds already are skipped")
        ->required();
    add_limit(app, a.limit)->needs(file);
    add_sampling(app, a.decoding, 256);
    a.decoding.batch = 32;
    add_batch(app, a.decoding);
}

void add_inspect(CLI::App& app, InspectArguments& a) {
    Conditions conditions(app);
    add_model(app, a.model);
    add_raw(app, a.model);
    auto* drafter = app.add_option("-d,--drafter", a.drafter, kDrafterHelp);
    auto* prompt = app.add_option("-p,--prompt", a.prompt,
                                  "The prompt; without it and --drafter, what the model's files say of it");
    prompt->needs(drafter);
    add_sampling(app, a.decoding, 64);
    app.add_option("--nodes", a.nodes, "Nodes of a draft tree")
        ->transform(within(ranges::kNodes))
        ->type_name("N")
        ->capture_default_str();
    app.add_option("--html", a.html, "A page that steps through the rounds, into this file, instead of drawings")
        ->type_name("FILE");
    add_tree(app, a.decoding, conditions);
    add_policy(app, a.decoding, conditions);
    for (CLI::Option* option : app.get_options())  // of decoding, all but these
        if (option != prompt && !option->check_lname("model") && !option->check_lname("help") &&
            !option->check_lname("template") && !option->check_lname("template-file"))
            option->needs(prompt);
}

void add_tokenize(CLI::App& app, TokenizeArguments& a) {
    app.add_option("-m,--model", a.model, "GGUF file or Hugging Face folder")->required();
    auto* chat =
        app.add_flag("--chat", a.chat, "Lines are conversations: {\"messages\": [...], \"tools\": [...], ...}");
    add_template(app, a.chat_template, a.template_file);
    app.get_option("--template")->needs(chat);
    app.get_option("--template-file")->needs(chat);
}

void add_compact(CLI::App& app, CompactArguments& a) {
    app.add_option("-d,--drafter", a.drafter, "Folder of a drafter that `outrider train` wrote")->required();
    app.add_option("-o,--output", a.output, "Folder for its small form")->required();
}

void add_bench(CLI::App& app, BenchArguments& a) {
    add_model(app, a.model);
    app.get_option("--weights")->description("How the matrices are held; auto: each way that makes sense here");
    app.remove_option(app.get_option("--template"));
    app.remove_option(app.get_option("--template-file"));
    add_drafter_device(app, a.model);
    app.add_option("-d,--drafter", a.drafter,
                   std::string(kDrafterHelp) + "; default: the best one shipped for the model, else ngram");
    app.add_option("--seconds", a.seconds, "About how long it takes; large models take longer to load and to run")
        ->transform(within(Range<double>{.low = 1, .high = 3600}))
        ->capture_default_str();
    app.add_flag("--brief", a.brief, "The machine, plain decoding and what is best here, without the tables");
    app.add_option("--json", a.json, "All numbers as JSON into this file; -: standard output instead of the page");
}

void add_serve(CLI::App& app, ServeArguments& a) {
    Conditions conditions(app);
    add_model(app, a.model);
    add_drafter_device(app, a.model);
    app.add_option("-d,--drafter", a.drafter,
                   std::string(kDrafterHelp) + "; default: the best one shipped for the model, else ngram");
    const auto whole = [&](const char* name, std::int64_t& value, std::int64_t low, std::int64_t high,
                           const char* help) {
        app.add_option(name, value, help)
            ->transform(within(Range<std::int64_t>{.low = low, .high = high}))
            ->type_name("N")
            ->capture_default_str();
    };
    app.add_option("--host", a.host, "Where to listen; an address beyond this machine needs a key, or --open")
        ->capture_default_str();
    app.add_option("--port", a.port, "0: any that is free")
        ->transform(within(Range<int>{.low = 0, .high = 65535}))
        ->capture_default_str();
    app.add_option("--api-key-file", a.key_file,
                   "File with the key that clients must present; default: $OUTRIDER_API_KEY, or no key")
        ->type_name("FILE");
    app.add_flag("--open", a.open, "Serve other machines without a key");
    app.add_option("--name", a.name, "The model's name for clients; default: that of its file");
    whole("--queue", a.queue, 0, 1'000'000, "Requests that may wait; more are refused with status 429");
    whole("--memory", a.memory, 0, std::int64_t{1} << 30, "MiB that the target's KV caches may take; 0: no bound");
    whole("--keep", a.keep, 0, std::int64_t{1} << 30,
          "MiB more for texts that ended, so that prompts which begin as they do are not read again; 0: none. On the "
          "CPU");
    whole("--request-seconds", a.seconds, 1, 86'400, "From a request's arrival to the end of its text");
    whole("--grace", a.grace, 0, 86'400, "Seconds that running texts get after a signal");
    whole("--connections", a.connections, 1, 4096, "Served beside each other; more wait");
    whole("--max-body", a.body, 1, 1024, "MiB of a request");
    add_sampling(app, a.decoding, 1024);
    a.decoding.generation.seed.reset();  // each request its own, unless it names one
    app.remove_option(app.get_option("--seed"));
    add_nodes(app, a.decoding, conditions);
    add_policy(app, a.decoding, conditions);
    a.decoding.batch = 8;
    add_batch(app, a.decoding);
}

}  // namespace

std::variant<Command, int> parse(int argc, const char* const* argv) {
    CLI::App app("Speculative decoding: a drafter rides ahead, the target keeps what it would have said anyway.",
                 "outrider");
    app.set_version_flag("--version", kVersion);
    app.require_subcommand(1);
    app.option_defaults()->multi_option_policy(
        CLI::MultiOptionPolicy::TakeLast);  // scripts append, the last word counts
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
    command("train", "Train a drafter; a run that is stopped ends with the status of the signal", add_train);
    command("inspect", "What a model is and needs; with a prompt, each round's draft tree, drawn", add_inspect);
    command("bench", "What this machine can gain: bandwidth, cost of passes, the best weights and nodes", add_bench);
    command("serve", "Answer requests over HTTP as OpenAI's API has them; Ctrl-C ends it", add_serve);
    command("tokenize", "JSON strings on stdin, one a line, to ids and the text they decode to", add_tokenize);
    command("compact", "Write a trained drafter in its small form, a third to half of the bytes", add_compact);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        const int status = app.exit(error) == 0 ? 0 : 2;
        std::cout.flush();
        flush_output();  // help that nobody can read is a failure as well
        return status;
    }
    return *chosen;
}

}  // namespace outrider::cli
