#include "engine.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>
#include <utility>

#include <outrider/engine.hpp>
#include <outrider/engine/make_policy.hpp>

#include "engine/prompt_stream.hpp"
#include "memory.hpp"

namespace outrider::cli {

std::string read_template(const std::string& path) {
    if (path.empty()) return {};
    std::ifstream in(path, std::ios::binary);
    std::string source{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    require(in.is_open() && !in.bad(), "--template-file: '{}' cannot be read; expected a file with a Jinja template",
            path);
    require(!source.empty(), "--template-file: '{}' is empty; expected a Jinja template", path);
    return source;
}

namespace {

/// A file of something else is not taken for a fresh table, which would be written over it.
void check_pass_times_file(const std::filesystem::path& file) {
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) return;
    require(std::filesystem::is_regular_file(file, ignored), "--pass-times: '{}' is no ordinary file", file.string());
    if (std::filesystem::file_size(file, ignored) == 0) return;
    std::ifstream in(file, std::ios::binary);
    const auto table = nlohmann::json::parse(in, nullptr, false);
    require(table.is_object() && table.contains("passes"),
            "--pass-times: '{}' holds something else, and would be overwritten; name another file", file.string());
}

DecoderOptions decoder_options(const DecodingArguments& arguments) {
    return {.nodes = arguments.nodes.value_or(kAutoNodes), .max_batch = static_cast<std::size_t>(arguments.batch)};
}

/// As --tree has them.
TreeKind tree_by_name(std::string_view name) {
    if (name == "static") return TreeKind::fixed;
    if (name == "per-frame") return TreeKind::per_frame;
    if (name == "measured") return TreeKind::measured;
    if (name == "sampled") return TreeKind::sampled;
    return name == "auto" ? TreeKind::automatic : TreeKind::best;
}

}  // namespace

std::filesystem::path pass_times_file(const DecodingArguments& arguments) {
    if (arguments.pass_times == "none") return {};
    if (arguments.pass_times == "default") return default_pass_times_file();
    check_pass_times_file(arguments.pass_times);
    return arguments.pass_times;
}

LlamaModel load_model(const ModelArguments& arguments) {
    LlamaModel::Options options;
    options.weights = weights_by_name(arguments.weights);
    options.device = at::Device(arguments.device);
    options.threads = arguments.threads;
    options.chat_template = arguments.chat_template;
    options.chat_template_source = read_template(arguments.template_file);
    const ReturnMemory loading;
    LlamaModel model = LlamaModel::load(arguments.path, options);
    if (!model.note().empty()) fmt::print(stderr, "outrider: note: {}\n", model.note());
    return model;
}

AnyDecoder make_decoder(const LlamaModel& model, std::unique_ptr<DraftModel> drafter,
                        const DecodingArguments& arguments) {
    const LlamaVerifier::Options target{.pass_times_file = pass_times_file(arguments)};
    return AnyDecoder(std::move(drafter), std::make_unique<LlamaVerifier>(model, target),
                      make_policy(arguments.accept, arguments.policy), decoder_options(arguments));
}

std::unique_ptr<DraftModel> load_drafter(const std::string& name, const LlamaModel& model,
                                         const ModelArguments& model_arguments, const DecodingArguments& arguments) {
    const ReturnMemory loading;
    return make_drafter(engine_options(name, model_arguments, arguments), model);
}

EngineOptions engine_options(const std::string& drafter, const ModelArguments& model_arguments,
                             const DecodingArguments& arguments) {
    EngineOptions options{.drafter = drafter, .policy = arguments.accept, .policy_options = arguments.policy};
    options.tree = tree_by_name(arguments.tree);
    options.chains = arguments.chains;
    options.draft_seed = arguments.generation.seed.value_or(0);
    options.draft_temperature = arguments.generation.temperature;
    options.target.threads = model_arguments.threads;
    if (!model_arguments.drafter_device.empty()) options.drafter_device = at::Device(model_arguments.drafter_device);
    options.decoder = decoder_options(arguments);
    return options;
}

std::string drafter_or_default(const std::string& drafter, const LlamaModel& model) {
    return drafter.empty() ? default_drafter(shipped_drafters(), model) : drafter;
}

Prompt make_prompt(const LlamaModel& model, const PromptRow& row, bool raw) {
    try {
        if (!row.text) {
            require(!raw, "--raw needs prompts with `prompt` or `turns`; this one has `messages`");
            return model.chat(row.messages, row.variables);
        }
        return raw ? model.raw(*row.text) : model.chat(*row.text);
    } catch (const Error& error) {
        fail("prompt '{}': {}", row.id, error.what());
    }
}

SequenceId join(AnyDecoder& decoder, const std::string& id, Prompt prompt, const GenerationOptions& options,
                Sink sink) {
    try {
        return decoder.join(std::move(prompt), options, std::move(sink));
    } catch (const Error& error) {
        fail("prompt '{}': {}", id, error.what());
    }
}

GenerationOptions options_for(const DecodingArguments& arguments, const Prompt& prompt, std::uint64_t sample) {
    GenerationOptions options = arguments.generation;
    options.stream = detail::prompt_stream(prompt, sample);
    return options;
}

}  // namespace outrider::cli
