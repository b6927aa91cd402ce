// outrider train: a drafter from text that the target wrote (docs/training.md).
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include <outrider/train/train_ctc.hpp>

#include "arguments.hpp"
#include "engine.hpp"

namespace outrider::cli {
namespace {

CtcTrainOptions options_from(const TrainArguments& a) {
    CtcTrainOptions options;
    options.data = a.data;
    options.output = a.output;
    options.features = a.features;
    options.conversations.greedy_only = a.greedy_only;
    if (a.held_out) options.held_out = *a.held_out;
    if (a.vocabulary) options.vocabulary = *a.vocabulary;
    if (a.frames) options.frames = *a.frames;
    if (a.labels) options.labels = *a.labels;
    if (a.label_decay) options.label_decay = *a.label_decay;
    options.conversations.limit = a.limit;
    if (a.learning_rate) options.learning_rate = *a.learning_rate;
    if (a.minutes) options.minutes = *a.minutes;
    if (a.loss == "ctc") options.loss = CtcLossKind::ctc;
    if (a.conditioning == "none") options.conditioning = CtcConditioning::none;
    options.anchors = a.anchors;
    options.seed = a.seed;
    options.resume = a.resume;
    options.progress = [](const CtcTrainProgress& progress) {
        fmt::print(stderr, "{}\n", describe(progress));
        return true;
    };
    return options;
}

}  // namespace

int run(const TrainArguments& arguments) {
    if (arguments.model.threads > 0) at::set_num_threads(arguments.model.threads);
    const LlamaModel model = load_model(arguments.model);
    LlamaVerifier verifier(model);
    const auto encode = [&model](std::span<const ChatMessage> messages) { return model.chat(messages).tokens; };
    const std::string name = std::filesystem::path(arguments.model.path).filename().string();
    const CtcTrainResult result = train_ctc(options_from(arguments), {model.head(), &verifier, name, encode});
    const auto& last = result.last;
    fmt::print("{}: {} steps, {} anchors, {:.0f} s, loss {:.3f}{}\n", arguments.output, last.step, last.anchors, last.seconds,
               last.loss, last.held_out_beta ? fmt::format(", held-out beta {:.2f}", *last.held_out_beta) : "");
    return 0;
}

}  // namespace outrider::cli
