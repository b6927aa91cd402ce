#include "engine.hpp"

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include <outrider/engine/make_drafter.hpp>
#include <outrider/engine/make_policy.hpp>

namespace outrider::cli {

LlamaModel load_model(const ModelArguments& arguments) {
    LlamaModel::Options options;
    options.weights = weights_by_name(arguments.weights);
    options.device = at::Device(arguments.device);
    options.threads = arguments.threads;
    options.chat_template = arguments.chat_template;
    return LlamaModel::load(arguments.path, options);
}

AnyDecoder make_decoder(const LlamaModel& model, std::unique_ptr<DraftModel> drafter,
                        const DecodingArguments& arguments) {
    DecoderOptions options;
    options.max_batch = static_cast<std::size_t>(arguments.batch);
    options.nodes = arguments.nodes.value_or(kAutoNodes);
    LlamaVerifier::Options target;
    if (arguments.pass_times == "none") target.pass_times_file = std::filesystem::path();
    else if (arguments.pass_times != "default") target.pass_times_file = arguments.pass_times;
    return AnyDecoder(std::move(drafter), std::make_unique<LlamaVerifier>(model, target),
                      make_policy(arguments.accept, arguments.policy), options);
}

std::unique_ptr<DraftModel> load_drafter(const std::string& name, const LlamaModel& model,
                                         const ModelArguments& model_arguments, const DecodingArguments& arguments) {
    DrafterOptions options;
    options.ctc.threads = model_arguments.threads;
    options.ctc.seed = arguments.generation.seed.value_or(0);
    const PolicyInfo& policy = policy_info(arguments.accept);
    const bool sampled = arguments.tree == "sampled" || (arguments.tree == "auto" && policy.needs_draws);
    options.ctc.chains = arguments.chains > 0 ? arguments.chains : policy.one_chain ? 1 : 2;
    options.lm.chains = options.ctc.chains, options.lm.seed = options.ctc.seed;
    // Draws are made at the request's temperature, greedy ones too; chosen trees need shares that tell tokens apart.
    if (sampled || arguments.generation.temperature > 0) options.lm.temperature = arguments.generation.temperature;
    if (sampled) options.lm.tree = LmTree::sampled;
    options.lm_model.device = at::Device(model_arguments.device);
    options.lm_model.threads = model_arguments.threads;
    if (arguments.tree == "static") options.ctc.tree = CtcTree::static_tree, options.heads.tree = HeadTree::static_tree;
    if (arguments.tree == "per-frame") options.ctc.tree = CtcTree::per_frame, options.heads.tree = HeadTree::static_tree;
    if (arguments.tree == "measured") options.heads.tree = HeadTree::measured;
    options.heads.threads = model_arguments.threads;
    if (sampled) options.ctc.tree = CtcTree::sampled, options.heads.tree = HeadTree::sampled;
    options.heads.chains = options.ctc.chains, options.heads.seed = options.ctc.seed;
    return make_drafter(name, model.head(), options);
}

std::string drafter_or_default(const std::string& drafter, const LlamaModel& model) {
    if (!drafter.empty()) return drafter;
    std::vector<std::filesystem::path> places;
    if (const char* place = std::getenv("OUTRIDER_DRAFTERS")) places.emplace_back(place);
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    if (!error) {
        places.push_back(program.parent_path().parent_path() / "share/outrider/drafters");
        places.push_back(program.parent_path().parent_path().parent_path() / "examples/drafters");
    }
    const auto found = find_drafter(places, model.fingerprint());
    return found ? found->string() + "+ngram" : "ngram";
}

Prompt make_prompt(const LlamaModel& model, const PromptRow& row, bool raw) {
    try {
        if (!row.text) {
            require(!raw, "--raw needs prompts with `prompt` or `turns`; this one has `messages`");
            return model.chat(row.messages);
        }
        return raw ? model.raw(*row.text) : model.chat(*row.text);
    } catch (const Error& error) {
        fail("prompt '{}': {}", row.id, error.what());
    }
}

SequenceId join(AnyDecoder& decoder, const std::string& id, Prompt prompt, const GenerationOptions& options, Sink sink) {
    try {
        return decoder.join(std::move(prompt), options, std::move(sink));
    } catch (const Error& error) {
        fail("prompt '{}': {}", id, error.what());
    }
}

GenerationOptions options_for(const DecodingArguments& arguments, std::size_t index) {
    GenerationOptions options = arguments.generation;
    options.stream = index;
    return options;
}

}  // namespace outrider::cli
