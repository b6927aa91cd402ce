// The command line of `outrider`: every command and option, its default, its range and its help.
#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

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
    app.add_option("--template", model.chat_template, "Chat template by name, instead of the one the file names")
        ->check(CLI::IsMember({"chatml", "llama2", "llama3", "vicuna", "zephyr"}));
}

void add_raw(CLI::App& app, ModelArguments& model) {
    app.add_flag("--raw", model.raw, "Take the prompt as text to continue, without a chat template")
        ->excludes("--template");
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
    app.add_option("--seed", options.seed, "The text is a function of target, prompt and seed")->capture_default_str();
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
           "Nodes of a draft tree, or auto: as many as pay on this machine")
        ->check(CLI::Validator(
            [](std::string& text) {
                return text == "auto" || whole(0, 4096)(text).empty()
                           ? std::string()
                           : fmt::format("expected auto or a whole number from 0 to 4096, got '{}'", text);
            },
            ""))
        ->type_name("N|auto")
        ->default_str("16");
    app.add_option("--tree", decoding.tree, "How a CTC drafter makes a tree of its frames")
        ->check(CLI::IsMember({"best-first", "static", "sampled"}))
        ->capture_default_str();
}

void add_limit(CLI::App& app, std::int64_t& limit) {
    app.add_option("--limit", limit, "Use the first N prompts only; 0: all")
        ->check(whole(0))
        ->type_name("N");
}

constexpr const char* kPromptsHelp = "JSON lines with `prompt`, `turns` or `messages`, and an `id`; -: standard input";
constexpr const char* kDrafterHelp = "none, ngram, a drafter's folder, or several joined with +";

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
    add_batch(app, a.decoding);
    app.add_option("--json", a.json, "Settings and rows as JSON into this file; -: standard output instead of the table");
}

void add_distill(CLI::App& app, DistillArguments& a) {
    add_model(app, a.model);
    app.add_option("--prompts", a.prompts, kPromptsHelp)->required();
    app.add_option("-o,--output", a.output, "JSON lines to train on; prompts that it holds already are skipped")
        ->required();
    add_limit(app, a.limit);
    add_sampling(app, a.decoding, 256);
    a.decoding.batch = 32;
    add_batch(app, a.decoding);
}

void add_train(CLI::App& app, TrainArguments& a) {
    add_model(app, a.model);
    app.add_option("--kind", a.kind, "Kind of drafter")->required()->check(CLI::IsMember({"ctc"}));
    app.add_option("--data", a.data, "JSON lines made by `outrider distill`")->required();
    app.add_option("-o,--output", a.output, "Folder of the drafter; its checkpoint goes there too")->required();
    app.add_option("--minutes", a.minutes, "Train this long; a resumed run counts what it had (default: 60)")
        ->check(number("a number above 0", [](double x) { return x > 0 && x <= 1e9; }));
    app.add_option("--anchors", a.anchors, "Train on so many positions instead; such a run repeats exactly")
        ->check(whole(0, std::numeric_limits<std::int64_t>::max()));
    app.add_flag("--resume", a.resume, "Go on from the checkpoint in the output folder");
    app.add_option("--loss", a.loss, "ctc: the paper's")->check(CLI::IsMember({"prefix", "ctc"}))->capture_default_str();
    app.add_option("--conditioning", a.conditioning, "What frames know of the drafted prefix; none: the paper's way")
        ->check(CLI::IsMember({"prefix", "none"}))
        ->capture_default_str();
    app.add_option("--vocabulary", a.vocabulary, "Tokens that the drafter can name (default: 4096)")->check(whole(1));
    app.add_option("--frames", a.frames, "Frames of one pass (default: 8)")->check(whole(1, 64));
    app.add_option("--labels", a.labels, "Tokens of the text that a position's loss looks at (default: 6)")->check(whole(1, 64));
    app.add_option("--label-decay", a.label_decay, "Weight of each of them over the one before (default: 0.8)")
        ->check(number("a number above 0, at most 1", [](double x) { return x > 0 && x <= 1; }));
    app.add_option("--limit", a.limit, "Take N conversations only; 0: all")->check(whole(0))->type_name("N");
    app.add_option("--held-out", a.held_out, "Conversations set aside to measure on (default: 128)")->check(whole(1));
    app.add_option("--learning-rate", a.learning_rate, "Highest rate (default: 0.001)")
        ->check(number("a number above 0", [](double x) { return x > 0 && x <= 1; }));
    app.add_flag("--greedy-only", a.greedy_only, "Leave out answers that were sampled");
    app.add_option("--features", a.features, "Where the target's features are kept (default: in the output folder)");
    app.add_option("--seed", a.seed, "Of initial weights and of the order of the data")->capture_default_str();
}

void add_inspect(CLI::App& app, InspectArguments& a) {
    add_model(app, a.model);
    add_raw(app, a.model);
    app.add_option("-d,--drafter", a.drafter, kDrafterHelp)->required();
    app.add_option("-p,--prompt", a.prompt, "The prompt")->required();
    add_sampling(app, a.decoding, 64);
    add_nodes(app, a.decoding);
}

void add_tokenize(CLI::App& app, TokenizeArguments& a) {
    app.add_option("-m,--model", a.model, "GGUF file or Hugging Face folder")->required();
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
