// What the command line says, as plain values: one struct per command. No command sees the option parser.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <outrider/core/options.hpp>
#include <outrider/engine/make_policy.hpp>

namespace outrider::cli {

/// Which target, and how it is held.
struct ModelArguments {
    std::string path;
    std::string weights = "auto";
    std::string chat_template;  ///< name of a built-in one; empty: the checkpoint's own
    std::string template_file;  ///< Jinja, instead of either; empty: none
    std::string device = "cpu";
    std::string drafter_device;  ///< empty: the target's
    int threads = 0;             ///< 0: one per physical core
    bool raw = false;            ///< prompts are text as they stand, not a chat message
};

/// How texts are decoded.
struct DecodingArguments {
    GenerationOptions generation;
    std::string accept = "match";  ///< acceptance policy, see make_policy
    PolicyOptions policy;
    std::string tree = "auto";           ///< sampled where the policy needs draws, else best-first; static
    std::int64_t chains = 0;             ///< of a sampled tree; 0: one where the policy takes one, else two
    std::optional<std::int64_t> nodes;   ///< tree nodes a round and sequence; nullopt: as many as pay
    std::string pass_times = "default";  ///< file of measured passes, "default", or "none"
    std::int64_t batch = 1;              ///< sequences decoded together
};

struct GenerateArguments {
    ModelArguments model;
    DecodingArguments decoding;
    std::string drafter;  ///< empty: the best one shipped for the model, else ngram
    std::optional<std::string> prompt;
    std::string prompts;  ///< file; empty together with `prompt`: standard input is the prompt
    std::int64_t limit = 0;
    std::string json;  ///< "-": standard output, instead of the texts
};

/// Each drafter runs once with each of `nodes`, which takes the place of `decoding.nodes`.
struct CompareArguments {
    ModelArguments model;
    DecodingArguments decoding;
    std::vector<std::string> drafters;
    std::vector<std::optional<std::int64_t>> nodes = {std::nullopt};  ///< none twice
    std::string prompts;
    std::int64_t limit = 0;  ///< 0: all
    std::string json;
};

struct DistillArguments {
    ModelArguments model;
    DecodingArguments decoding;
    std::string prompts;            ///< file; empty: the target makes prompts up
    std::int64_t self_prompts = 0;  ///< answers to prompts that it made up, those in the output counted
    double prompt_temperature = 1.0;
    std::int64_t prompt_tokens = 24;   ///< of a made-up raw text, before it is continued
    std::vector<std::string> exclude;  ///< files of prompts that made-up ones must not resemble
    std::string output;
    std::int64_t limit = 0;
};

/// What is not given keeps the kind's own default.
struct TrainArguments {
    ModelArguments model;
    std::string kind;
    std::vector<std::string> data;
    std::string output;
    std::string from;      ///< drafter folder to start from; empty: random weights
    std::string features;  ///< where target features are kept; empty: in the output folder
    bool stored_features = false, features_only = false;

    std::optional<double> teacher;
    std::optional<std::string> loss, conditioning;  ///< ctc
    std::optional<std::int64_t> frames, labels, layers, prefix_rank, prefix_bottleneck;
    std::vector<std::int64_t> feature_layers;         ///< ctc
    std::optional<std::int64_t> draft_heads, blocks;  ///< medusa, hydra
    std::optional<std::string> output_rows;
    std::optional<std::string> residual, prefix_layer;  ///< hydra
    bool output_bias = false;
    std::optional<std::int64_t> attention_heads, kv_heads, intermediate;  ///< ctc, hydra

    std::optional<std::int64_t> vocabulary, held_out, batch_anchors, group_anchors, most_tokens, evaluate_conversations;
    std::optional<double> label_decay, learning_rate, warmup, final_rate, weight_decay, clip, ema;
    std::optional<double> minutes, report_seconds, checkpoint_minutes, evaluate_minutes;
    std::int64_t limit = 0;    ///< conversations taken; 0: all
    std::int64_t anchors = 0;  ///< above 0: so many instead of so many minutes
    std::uint64_t seed = 0;
    bool greedy_only = false;
    bool resume = false;
    bool force = false;  ///< replace a drafter that is there
    bool f32 = false;
};

struct InspectArguments {
    ModelArguments model;
    DecodingArguments decoding;
    std::int64_t nodes = 16;
    std::string drafter;  ///< empty: the model alone is described, and nothing is decoded
    std::string prompt;
    std::string html;  ///< a page instead of drawings; empty: none
};

struct CompactArguments {
    std::string drafter;  ///< folder
    std::string output;   ///< folder
};

struct TokenizeArguments {
    std::string model;
    bool chat = false;                         ///< lines are conversations, not strings
    std::string chat_template, template_file;  ///< see ModelArguments
};

/// Weights "auto": each way of holding them that makes sense here.
struct BenchArguments {
    ModelArguments model;
    std::string drafter;  ///< empty: the best one shipped for the model, else ngram; none: no drafts
    double seconds = 10;  ///< that it takes, loading and large models apart
    bool brief = false;   ///< without the tables
    std::string json;     ///< "-": standard output, instead of the page
};

/// What requests say nothing of holds as in `decoding`.
struct ServeArguments {
    ModelArguments model;
    DecodingArguments decoding;
    std::string drafter;  ///< empty: the best one shipped for the model, else ngram
    std::string host = "127.0.0.1";
    int port = 8080;
    std::string key_file;      ///< of the key that clients present; empty: $OUTRIDER_API_KEY, or none
    bool open = false;         ///< beyond this machine without a key
    std::string name;          ///< of the model, for clients; empty: that of its file
    std::int64_t queue = 256;  ///< requests that may wait
    std::int64_t memory = 0;   ///< MiB of KV caches; 0: no bound
    std::int64_t keep = 256;   ///< MiB of texts that ended; 0: none
    std::int64_t seconds = 600, grace = 10;
    std::int64_t connections = 64;
    std::int64_t body = 4;  ///< MiB of a request
};

using Command = std::variant<GenerateArguments, CompareArguments, DistillArguments, TrainArguments, InspectArguments,
                             TokenizeArguments, CompactArguments, BenchArguments, ServeArguments>;

/// Either a command to run, or the exit status of a program that has nothing to do (help, version, wrong usage).
std::variant<Command, int> parse(int argc, const char* const* argv);

/// Run a command; they throw Error for everything that a user can get wrong. The exit status.
int run(const GenerateArguments& arguments);
int run(const CompareArguments& arguments);
int run(const DistillArguments& arguments);
int run(const TrainArguments& arguments);
int run(const InspectArguments& arguments);
int run(const TokenizeArguments& arguments);
int run(const CompactArguments& arguments);
int run(const BenchArguments& arguments);
int run(const ServeArguments& arguments);

}  // namespace outrider::cli
