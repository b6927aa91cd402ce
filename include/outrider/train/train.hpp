// Training of drafters on text that the target wrote, target frozen: CTC, Medusa and Hydra.
//
// How to use it (the program's `train` does this):
//     TrainOptions options{.data = {"text.jsonl"}, .output = "my-drafter", .minutes = 60};
//     options.progress = [](const TrainProgress& p) { fmt::print(stderr, "{}\n", describe(p)); return true; };
//     const TrainResult result = train_ctc(options, {.frames = 6}, {model.head(), &verifier, model_name, encode});
// `output` is a drafter folder from the first checkpoint on: CtcDraft::load(output, model.head()) reads it. With
// options.resume a stopped run goes on from its last checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <c10/core/Device.h>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/types.hpp>
#include <outrider/draft/ctc/detail/ctc_config.hpp>
#include <outrider/draft/hydra/detail/hydra_config.hpp>
#include <outrider/draft/medusa/detail/medusa_config.hpp>
#include <outrider/target/target_head.hpp>
#include <outrider/target/verifier.hpp>
#include <outrider/text/chat_template.hpp>
#include <outrider/train/detail/train_ranges.hpp>

namespace outrider {

/// Prompt and answer as the target saw them.
struct Conversation {
    std::vector<TokenId> tokens;
    std::int64_t answer = 0;  ///< tokens of the prompt: the answer begins here
    std::int64_t row = 0;     ///< line of the file, from 0
    std::size_t text = 0;     ///< which file, where several are joined
    bool greedy = true;       ///< written at temperature 0
};

/// The target's ids of a prompt. Rows of a kind whose function is missing are an error.
struct PromptEncoder {
    std::function<std::vector<TokenId>(std::span<const ChatMessage>)> chat;  ///< LlamaModel::chat
    std::function<std::vector<TokenId>(std::string_view)> raw = {};          ///< LlamaModel::raw
};

struct ConversationOptions {
    bool greedy_only = false;       ///< leave out what was sampled: right for a drafter that serves greedy decoding
    std::int64_t max_tokens = 768;  ///< longer conversations are left out
    std::int64_t limit = 0;         ///< take that many conversations only; 0: all
};

/// Reads JSON lines as `distill` writes them: `messages` (the last one is the answer), or `prompt` where a raw text was
/// continued, `prompt_tokens`, `completion_ids`, `temperature`. Each row says by itself which it is, so both may be
/// trained on together. The prompt is encoded anew and must have prompt_tokens tokens. The order is that of a hash of
/// the row, greedy ones first, so that any first part is a fair sample. Throws Error that names the line.
[[nodiscard]] OUTRIDER_API std::vector<Conversation> read_conversations(const std::filesystem::path& path,
                                                                        const PromptEncoder& encode,
                                                                        const ConversationOptions& options = {});

/// Several files as one set, in the same order by row: each file's own order stays, so that what was computed for the
/// files alone serves the set as well (see FeatureStore). Throws Error for a file that is given twice.
[[nodiscard]] OUTRIDER_API std::vector<Conversation> read_conversations(std::span<const std::filesystem::path> paths,
                                                                        const PromptEncoder& encode,
                                                                        const ConversationOptions& options = {});

/// The `count` tokens that occur in most of the answers, ascending. A text that repeats itself counts a token once;
/// ties go to the token that occurs more often, then to the smaller id. `count` 0: as many as make up 95 % of the
/// answers' tokens, so that text and target decide.
[[nodiscard]] OUTRIDER_API std::vector<TokenId> frequent_tokens(std::span<const Conversation> conversations,
                                                                std::int64_t count);

/// Tells sets of conversations apart: a hash of all their tokens in order; the second takes those of one text only.
[[nodiscard]] OUTRIDER_API std::uint64_t hash_of(std::span<const Conversation> conversations);
[[nodiscard]] OUTRIDER_API std::uint64_t hash_of(std::span<const Conversation> conversations, std::size_t text);

/// What the run learns from.
struct TrainTarget {
    TargetHead head;
    Verifier* verifier = nullptr;  ///< computes features that are not on disk yet; may be null if all of them are
    std::string name;              ///< for people, kept in config.json: UTF-8
    PromptEncoder encode;          ///< of the text's prompts
};

/// A line of progress.
struct TrainProgress {
    std::int64_t step = 0, anchors = 0, epoch = 0;
    double seconds = 0;                 ///< of training, earlier parts of a resumed run included
    double fraction = 0;                ///< of the whole run, 0 to 1
    double loss = 0;                    ///< nats per label, weighted, mean since the last line
    std::vector<double> loss_by_label;  ///< the same for y_1, y_2, ...
    double anchors_per_second = 0;      ///< since the last line
    double learning_rate = 0, gradient_norm = 0;
    std::int64_t skipped_anchors = 0, skipped_steps = 0;  ///< losses or gradients that were not finite
    std::int64_t feature_tokens = 0;                      ///< tokens whose features had to be computed in this run
    std::optional<double> held_out_loss;                  ///< of the averaged weights
    std::optional<double> held_out_beta;    ///< tokens per round on held-out answers, 16 nodes, best first
    std::vector<double> held_out_accepted;  ///< share of rounds that keep a node of depth 1, 2, ...
    bool checkpoint = false;                ///< one was written just now
};

/// One line of text.
[[nodiscard]] OUTRIDER_API std::string describe(const TrainProgress& progress);

/// Data, schedule and bookkeeping of a run, whatever it trains.
struct TrainOptions {
    std::vector<std::filesystem::path> data;  ///< JSON lines, see read_conversations; several are joined
    std::filesystem::path output;             ///< drafter folder, and checkpoint.safetensors beside its files
    std::filesystem::path features;           ///< where features are kept; empty: output/features
    bool stored_features = false;             ///< leave out conversations whose features are not on disk yet
    bool features_only = false;               ///< compute what features are missing, and end
    ConversationOptions conversations = {};
    std::int64_t held_out = 128;  ///< conversations that are never trained on; rounded up to whole shards of 64
    std::filesystem::path from;   ///< drafter folder to start from: its weights, vocabulary and scales; sizes must be
                                  ///< those of the options, the schedule is a fresh one. Empty: random weights

    std::int64_t vocabulary = 0;  ///< draft tokens; 0: as many as text and target ask for, see frequent_tokens
    double label_decay = 0.8;     ///< weight of label k: label_decay^(k - 1)

    double learning_rate = 1e-3;
    double warmup = 0.01;      ///< part of the run that the rate rises over
    double final_rate = 0.02;  ///< of learning_rate, at the end of the cosine
    double weight_decay = 0.01;
    double clip = 1.0;
    double ema = 0.999;
    std::int64_t batch_anchors = 256;
    std::int64_t group_anchors = 0;  ///< of one conversation in a batch; they share its context. 0: the kind's own
    double minutes = 60;             ///< the cosine ends there, time spent before a resume included
    std::int64_t anchors = 0;  ///< if above 0, the run is planned by anchors: then it gives the same weights every
                               ///< time, resumed or not, whatever features are on disk already
    std::uint64_t seed = 0;
    bool resume = false;     ///< go on from output/checkpoint.safetensors; its sizes must be these options'
    bool overwrite = false;  ///< replace the drafter that is in `output`; without this or `resume` it is an Error
    int threads = 0;         ///< of the steps; 0: one per physical core. The result does not depend on it
    bool bf16 = true;        ///< products in bfloat16 where the CPU has instructions for them, else in float32

    /// Where steps are computed: on the CPU by vector loops, on any other device of LibTorch by tensor operations, with
    /// weights, optimiser, batches and losses there. Checkpoints are the same, so that a run may move between the two.
    at::Device device = at::kCPU;
    std::size_t device_feature_bytes = std::size_t{4} << 30;  ///< of features that stay on the device

    double report_seconds = 20, checkpoint_minutes = 4, evaluate_minutes = 8;
    std::int64_t evaluate_conversations = 24;
    /// Called with every line; false stops the run after a checkpoint.
    std::function<bool(const TrainProgress&)> progress;
};

/// Throws Error for a number out of its range (train_ranges.hpp), and for options that exclude each other.
OUTRIDER_API void check_options(const TrainOptions& options);

struct TrainResult {
    TrainProgress last;
    bool finished = false;  ///< false: stopped by the callback
};

/// What a CTC drafter learns from the labels y_1..y_U after an anchor.
enum class CtcLossKind : unsigned char {
    prefix,  ///< -sum_k w_k log q(y_k | y_<k): the text may go on, so that nothing forces an end
    ctc,     ///< -log P(y_1:U) (the paper's): the alignments must collapse to exactly the window
};

/// Sizes and objective of a CTC drafter.
struct CtcTrainOptions {
    std::int64_t frames = 8;
    std::int64_t heads = 0;         ///< 0: hidden / 64, at least 1
    std::int64_t kv_heads = 0;      ///< 0: heads / 3, or the next fewer that divide the heads
    std::int64_t intermediate = 0;  ///< 0: 8/3 of hidden, rounded up to 64
    CtcConditioning conditioning = CtcConditioning::prefix;
    std::int64_t layers = 1;
    std::int64_t prefix_rank = 1024;
    std::int64_t prefix_bottleneck = 256;  ///< 0, or no less than prefix_rank: none
    HeadOutput output =
        HeadOutput::target;  ///< rows of the prediction network: `own` or `target`; `shared` is an error
    std::vector<std::int64_t> feature_layers = {};  ///< CtcConfig's. A drafter to start from may have some of them
                                                    ///< only: what the others add begins at zero

    CtcLossKind loss = CtcLossKind::prefix;
    std::int64_t labels = 6;  ///< U
    double teacher = 0.0;     ///< share of each label that follows the target's own distribution, by its likeliest
                              ///< tokens at temperature 1; prefix loss only
};

/// Runs until the plan is fulfilled, on all physical cores: it works on the parts of a batch beside each other, so ATen
/// should do each on one thread (at::set_num_threads(1), which is the host's to call). Throws Error for options that do
/// not fit the data, the target, the drafter to start from or the checkpoint.
OUTRIDER_API TrainResult train_ctc(const TrainOptions& options, const CtcTrainOptions& ctc, const TrainTarget& target);

/// Sizes and objective of Hydra's heads (Ankner et al. 2024, arXiv 2402.05109).
struct HydraTrainOptions {
    std::int64_t heads = 4;   ///< head i learns the token i + 1 places after the pending one
    std::int64_t blocks = 1;  ///< of each head
    HydraResidual residual = HydraResidual::feature;
    HeadOutput output = HeadOutput::target;
    bool output_bias = false;

    bool prefix_layer = true;          ///< Hydra++
    std::int64_t attention_heads = 0;  ///< of that layer, as the next two; 0: see CtcTrainOptions
    std::int64_t kv_heads = 0;
    std::int64_t intermediate = 0;

    double teacher = 0.0;  ///< share of the target's own distribution in the loss (label_loss.hpp), the rest is the
                           ///< text's token; 1 is how Hydra++ was published
};

/// See train_ctc. Every head sees the true tokens before its own (teacher forcing). The loss is the heads'
/// cross-entropy, weighted by label_decay. A label outside the draft vocabulary ends an anchor's labels: no draft can
/// go through it, so that what heads after it learnt would serve no one.
OUTRIDER_API TrainResult train_hydra(const TrainOptions& options, const HydraTrainOptions& hydra,
                                     const TrainTarget& target);

/// Sizes and objective of Medusa's heads (Medusa-1 of Cai et al. 2024, arXiv 2401.10774).
struct MedusaTrainOptions {
    std::int64_t heads = 5;   ///< head i learns the token i + 1 places after the pending one
    std::int64_t blocks = 1;  ///< residual blocks of each head
    HeadOutput output = HeadOutput::shared;
    double teacher = 0.0;  ///< share of the target's own distribution in the loss (label_loss.hpp), the rest is the
                           ///< text's token
};

/// See train_ctc. The loss is the heads' cross-entropy, weighted by label_decay. A label outside the draft vocabulary
/// is left out alone: heads do not know of each other's labels, so the others learn as well without it.
OUTRIDER_API TrainResult train_medusa(const TrainOptions& options, const MedusaTrainOptions& medusa,
                                      const TrainTarget& target);

}  // namespace outrider
