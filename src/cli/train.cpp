// outrider train: a drafter from text that the target wrote (docs/training.md).
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <csignal>
#include <filesystem>

#include <outrider/core/detail/utf8_stream.hpp>
#include <outrider/train/train.hpp>

#include "arguments.hpp"
#include "engine.hpp"
#include "json_output.hpp"
#include "memory.hpp"
#include "output.hpp"

namespace outrider::cli {
namespace {

volatile std::sig_atomic_t stop_asked = 0;

/// The first interrupt ends the run after its next line of progress, with a checkpoint and the exit status that shells
/// give to what a signal ended; a second one ends it at once.
void on_signal(int signal) {
    stop_asked = signal;
    std::signal(signal, SIG_DFL);
}

template <typename From, typename To>
void take(const std::optional<From>& given, To& option) {
    if (given) option = static_cast<To>(*given);
}

TrainOptions common_options(const TrainArguments& a) {
    TrainOptions options;
    options.data.assign(a.data.begin(), a.data.end());
    options.output = a.output, options.features = a.features, options.from = a.from;
    options.stored_features = a.stored_features, options.features_only = a.features_only;
    options.conversations.greedy_only = a.greedy_only;
    options.conversations.limit = a.limit;
    take(a.most_tokens, options.conversations.max_tokens);
    take(a.held_out, options.held_out);
    take(a.vocabulary, options.vocabulary);
    take(a.label_decay, options.label_decay);
    take(a.learning_rate, options.learning_rate);
    take(a.warmup, options.warmup);
    take(a.final_rate, options.final_rate);
    take(a.weight_decay, options.weight_decay);
    take(a.clip, options.clip);
    take(a.ema, options.ema);
    take(a.batch_anchors, options.batch_anchors);
    take(a.group_anchors, options.group_anchors);
    take(a.minutes, options.minutes);
    take(a.report_seconds, options.report_seconds);
    take(a.checkpoint_minutes, options.checkpoint_minutes);
    take(a.evaluate_minutes, options.evaluate_minutes);
    take(a.evaluate_conversations, options.evaluate_conversations);
    options.anchors = a.anchors;
    options.seed = a.seed;
    options.resume = a.resume, options.overwrite = a.force;
    options.threads = a.model.threads;
    options.device = at::Device(a.model.device);
    options.bf16 = !a.f32;
    options.progress = [](const TrainProgress& progress) {
        tell(describe(progress) + '\n');
        return stop_asked == 0;
    };
    return options;
}

void take_output(const std::optional<std::string>& given, HeadOutput& option) {
    if (given) option = head_output(*given);
}

CtcTrainOptions ctc_options(const TrainArguments& a) {
    CtcTrainOptions options;
    take(a.frames, options.frames);
    take(a.labels, options.labels);
    take(a.prefix_rank, options.prefix_rank);
    take(a.prefix_bottleneck, options.prefix_bottleneck);
    take(a.layers, options.layers);
    options.feature_layers = a.feature_layers;
    take(a.teacher, options.teacher);
    take(a.attention_heads, options.heads);
    take(a.kv_heads, options.kv_heads);
    take(a.intermediate, options.intermediate);
    if (a.loss == "ctc") options.loss = CtcLossKind::ctc;
    take_output(a.output_rows, options.output);
    if (a.conditioning == "none") options.conditioning = CtcConditioning::none;
    return options;
}

MedusaTrainOptions medusa_options(const TrainArguments& a) {
    MedusaTrainOptions options;
    take(a.draft_heads, options.heads);
    take(a.blocks, options.blocks);
    take(a.teacher, options.teacher);
    take_output(a.output_rows, options.output);
    return options;
}

HydraTrainOptions hydra_options(const TrainArguments& a) {
    HydraTrainOptions options;
    take(a.draft_heads, options.heads);
    take(a.blocks, options.blocks);
    take(a.teacher, options.teacher);
    take_output(a.output_rows, options.output);
    take(a.attention_heads, options.attention_heads);
    take(a.kv_heads, options.kv_heads);
    take(a.intermediate, options.intermediate);
    options.output_bias = a.output_bias;
    if (a.residual == "matrix") options.residual = HydraResidual::matrix;
    if (a.prefix_layer) options.prefix_layer = *a.prefix_layer == "on";
    return options;
}

TrainResult train(const TrainArguments& a, const TrainTarget& target) {
    if (a.kind == "medusa") return train_medusa(common_options(a), medusa_options(a), target);
    if (a.kind == "hydra") return train_hydra(common_options(a), hydra_options(a), target);
    return train_ctc(common_options(a), ctc_options(a), target);
}

}  // namespace

int run(const TrainArguments& arguments) {
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    const LlamaModel model = load_model(arguments.model);
    keep_memory();
    at::set_num_threads(1);  // the parts of a batch are what runs in parallel
    LlamaVerifier verifier(model);
    const PromptEncoder encode{
        .chat = [&model](std::span<const ChatMessage> messages) { return model.chat(messages).tokens; },
        .raw = [&model](std::string_view text) { return model.raw(text).tokens; }};
    const std::string file = std::filesystem::path(arguments.model.path).filename().string();
    const std::string name = is_valid_utf8(file) ? file : escape_bytes(file);
    const TrainResult result = train(arguments, {model.head(), &verifier, name, encode});
    const TrainProgress& last = result.last;
    const int status = result.finished ? 0 : 128 + stop_asked;
    if (arguments.features_only) {
        print(fmt::format("features of {} tokens computed{}\n", last.feature_tokens,
                          result.finished ? ", all are there" : ", stopped; the same command goes on"));
        return status;
    }
    print(fmt::format("{}: {} steps, {} anchors, {:.0f} s{}{}{}\n", arguments.output, last.step, last.anchors,
                      last.seconds,
                      last.loss > 0 ? fmt::format(", loss {:.3f}", last.loss) : ", as it was: the plan is fulfilled",
                      last.held_out_beta ? fmt::format(", held-out beta {:.2f}", *last.held_out_beta) : "",
                      result.finished ? "" : ", stopped; --resume goes on"));
    return status;
}

}  // namespace outrider::cli
