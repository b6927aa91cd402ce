// Training of CTC drafters on text that the target wrote, target frozen.
//
// How to use it (the program's `train --kind ctc` does this):
//     CtcTrainOptions options{.data = "text.jsonl", .output = "my-drafter", .minutes = 60};
//     options.progress = [](const CtcTrainProgress& p) { fmt::print(stderr, "{}\n", describe(p)); return true; };
//     const CtcTrainResult result = train_ctc(options, {model.head(), &verifier, model_name, encode});
// `output` is a drafter folder from the first checkpoint on: CtcDraft::load(output, model.head()) reads it. With
// options.resume a stopped run goes on from its last checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include <outrider/draft/ctc_config.hpp>
#include <outrider/interface/target_head.hpp>
#include <outrider/interface/verifier.hpp>
#include <outrider/train/conversations.hpp>
#include <outrider/train/ctc_recursion.hpp>

namespace outrider {

/// What the run learns from.
struct TrainTarget {
    TargetHead head;
    Verifier* verifier = nullptr;  ///< computes features that are not on disk yet; may be null if all of them are
    std::string name;              ///< for people, kept in config.json
    PromptEncoder encode;          ///< from messages to prompt ids
};

/// A line of progress.
struct CtcTrainProgress {
    std::int64_t step = 0, anchors = 0, epoch = 0;
    double seconds = 0;            ///< of training, earlier parts of a resumed run included
    double fraction = 0;           ///< of the whole run, 0 to 1
    double loss = 0;               ///< nats per label, weighted, mean since the last line
    std::vector<double> loss_by_label;  ///< the same for y_1, y_2, ...
    double anchors_per_second = 0; ///< since the last line
    double learning_rate = 0, gradient_norm = 0;
    std::int64_t skipped_anchors = 0, skipped_steps = 0;  ///< losses or gradients that were not finite
    std::int64_t feature_tokens = 0;      ///< tokens whose features had to be computed in this run
    std::optional<double> held_out_loss;  ///< of the averaged weights
    std::optional<double> held_out_beta;  ///< tokens per round on held-out answers, 16 nodes, best first
    std::vector<double> held_out_accepted;  ///< share of rounds that keep a node of depth 1, 2, ...
    bool checkpoint = false;              ///< one was written just now
};

/// One line of text.
[[nodiscard]] std::string describe(const CtcTrainProgress& progress);

struct CtcTrainOptions {
    std::filesystem::path data;      ///< JSON lines, see conversations.hpp
    std::filesystem::path output;    ///< drafter folder, and checkpoint.safetensors beside its files
    std::filesystem::path features;  ///< where features are kept; empty: output/features
    bool stored_features = false;    ///< leave out conversations whose features are not on disk yet
    ConversationOptions conversations = {};
    std::int64_t held_out = 128;     ///< conversations that are never trained on; rounded up to whole shards of 64

    std::int64_t vocabulary = 4096;  ///< draft tokens, the most frequent in the answers
    std::int64_t frames = 8;
    std::int64_t heads = 0;          ///< 0: hidden / 64, at least 1
    std::int64_t kv_heads = 0;       ///< 0: heads / 3 where that divides, else heads
    std::int64_t intermediate = 0;   ///< 0: 8/3 of hidden, rounded up to 64
    CtcConditioning conditioning = CtcConditioning::prefix;
    std::int64_t prefix_rank = 256;

    CtcLossKind loss = CtcLossKind::prefix;
    std::int64_t labels = 6;         ///< U
    double label_decay = 0.8;        ///< w_k = label_decay^(k - 1)

    double learning_rate = 1e-3;
    double warmup = 0.01;            ///< part of the run that the rate rises over
    double final_rate = 0.02;        ///< of learning_rate, at the end of the cosine
    double weight_decay = 0.01;
    double clip = 1.0;
    double ema = 0.999;
    std::int64_t batch_anchors = 256;
    std::int64_t group_anchors = 32; ///< of one conversation in a batch; they share its keys and values
    double minutes = 60;             ///< the cosine ends there, time spent before a resume included
    std::int64_t anchors = 0;        ///< if above 0, the run is planned by anchors: then it repeats exactly
    std::uint64_t seed = 0;
    bool resume = false;             ///< go on from output/checkpoint.safetensors; its sizes must be these options'
    bool bf16 = true;                ///< products in bfloat16 where the CPU has instructions for them, else in float32

    double report_seconds = 20, checkpoint_minutes = 4, evaluate_minutes = 8;
    std::int64_t evaluate_conversations = 24;
    /// Called with every line; false stops the run after a checkpoint.
    std::function<bool(const CtcTrainProgress&)> progress;
};

struct CtcTrainResult {
    CtcTrainProgress last;
    bool finished = false;  ///< false: stopped by the callback
};

/// Runs until the plan is fulfilled, on all physical cores; sets ATen's own threads to 1. Throws Error for options that
/// do not fit the data, the target or the checkpoint.
CtcTrainResult train_ctc(const CtcTrainOptions& options, const TrainTarget& target);

}  // namespace outrider
