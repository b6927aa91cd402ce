// Options of `outrider train`. Their ranges are those that training itself holds to.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include <outrider/train/detail/train_ranges.hpp>

#include "numbers.hpp"
#include "option_groups.hpp"

namespace outrider::cli {
namespace {

void add_text_to_train(CLI::App& app, TrainArguments& a) {
    app.add_option("--data", a.data, "JSON lines made by `outrider distill`; may be given several times")
        ->required()
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false);
    app.add_flag("--greedy-only", a.greedy_only, "Leave out answers that were sampled");
    app.add_option("--limit", a.limit, "Take N conversations only; 0: all")
        ->transform(within(ranges::kLimit))
        ->type_name("N");
    app.add_option("--most-tokens", a.most_tokens, "Leave out longer conversations (default: 768)")
        ->transform(within(ranges::kConversationTokens))
        ->type_name("N");
    app.add_option("--held-out", a.held_out,
                   "Conversations set aside to measure on, rounded up to whole 64s (default: 128)")
        ->transform(within(ranges::kHeldOut));
    app.add_option("--features", a.features, "Where the target's features are kept (default: in the output folder)");
    auto* stored = app.add_flag("--stored-features", a.stored_features,
                                "Leave out conversations whose features are not there yet");
    app.add_flag("--features-only", a.features_only, "Compute the features that are missing, and end")
        ->excludes(stored);
}

void add_schedule(CLI::App& app, TrainArguments& a) {
    auto* minutes =
        app.add_option("--minutes", a.minutes, "Train this long; a resumed run counts what it had (default: 60)")
            ->transform(within(ranges::kMinutes));
    app.add_option("--anchors", a.anchors,
                   "Train on so many positions instead: the same weights every time, resumed or not, whatever features "
                   "are on disk already")
        ->transform(within(ranges::kAnchors))
        ->excludes(minutes);
    app.add_option("--learning-rate", a.learning_rate, "Highest rate (default: 0.001)")
        ->transform(within(ranges::kLearningRate));
    app.add_option("--warmup", a.warmup, "Part of the run that the rate rises over (default: 0.01)")
        ->transform(within(ranges::kPartOfRun));
    app.add_option("--final-rate", a.final_rate, "Rate at the end, of the highest (default: 0.02)")
        ->transform(within(ranges::kPartOfRun));
    app.add_option("--weight-decay", a.weight_decay, "Of matrices (default: 0.01)")
        ->transform(within(ranges::kWeightDecay));
    app.add_option("--clip", a.clip, "Largest norm of the gradient (default: 1)")->transform(within(ranges::kClip));
    app.add_option("--ema", a.ema, "Decay of the averaged weights, which are what is kept (default: 0.999)")
        ->transform(within(ranges::kEma));
    app.add_option("--batch-anchors", a.batch_anchors, "Positions a step (default: 256)")
        ->transform(within(ranges::kBatchAnchors));
    app.add_option("--group-anchors", a.group_anchors,
                   "Positions of one conversation in a step; 0, the default: by kind")
        ->transform(within(ranges::kGroupAnchors));
    app.add_flag("--f32", a.f32, "Products in float32 where bfloat16 is faster");
    app.add_option("--seed", a.seed, "Of initial weights and of the order of the data")
        ->transform(within(Range<std::uint64_t>{}))
        ->capture_default_str();
}

void add_course(CLI::App& app, TrainArguments& a) {
    auto* resume = app.add_flag("--resume", a.resume, "Go on from the checkpoint in the output folder");
    app.add_flag("--force", a.force,
                 "Replace the drafter in the output folder; without this or --resume it is left alone")
        ->excludes(resume);
    app.add_option("--from", a.from, "Drafter folder to start from: its weights and vocabulary, a fresh schedule");
    app.add_option("--report-seconds", a.report_seconds, "Time between lines of progress (default: 20)")
        ->transform(within(ranges::kInterval));
    app.add_option("--checkpoint-minutes", a.checkpoint_minutes, "Between checkpoints (default: 4)")
        ->transform(within(ranges::kInterval));
    app.add_option("--evaluate-minutes", a.evaluate_minutes, "Between held-out measurements (default: 8)")
        ->transform(within(ranges::kInterval));
    app.add_option("--evaluate-conversations", a.evaluate_conversations, "Held-out texts of each (default: 24)")
        ->transform(within(ranges::kEvaluateConversations));
}

/// Options that some kinds of drafters have, and what else they need.
class SizeOptions {
public:
    SizeOptions(CLI::App& app, TrainArguments& a) : app_(app), a_(a), conditions_(app) {}

    using Kinds = std::vector<std::string>;

    /// Given with another kind it is wrong usage.
    CLI::Option* of(const Kinds& kinds, CLI::Option* option) {
        option->group(fmt::format("Sizes and loss of {}", fmt::join(kinds, ", ")));
        return conditions_.only_if(
            option, [kinds, &a = a_] { return std::ranges::find(kinds, a.kind) != kinds.end(); },
            [kinds, &a = a_] { return fmt::format("belongs to {}, not to {}", fmt::join(kinds, " and "), a.kind); });
    }

    /// Besides, it is wrong usage where `holds` does not.
    void needs(CLI::Option* option, std::function<bool(const TrainArguments&)> holds, const char* otherwise) {
        conditions_.only_if(
            option, [holds = std::move(holds), &a = a_] { return holds(a); },
            [otherwise] { return std::string(otherwise); });
    }

    void add_common() {
        auto* vocabulary =
            app_.add_option("--vocabulary", a_.vocabulary,
                            "Tokens that the drafter can name; 0, the default: as many as the text asks for")
                ->transform(within(ranges::kVocabulary));
        needs(
            vocabulary, [](const TrainArguments& a) { return a.from.empty(); },
            "is that of the drafter which --from names; leave one of them out");
        app_.add_option("--label-decay", a_.label_decay, "Weight of each label over the one before (default: 0.8)")
            ->transform(within(ranges::kLabelDecay));
        auto* teacher =
            app_.add_option("--teacher", a_.teacher,
                            "Share of the target's own distribution in the loss, beside its text (default: 0)")
                ->transform(within(ranges::kTeacher));
        needs(
            teacher, [](const TrainArguments& a) { return a.loss != "ctc" || a.teacher == 0.0; },
            "needs --loss prefix");
        auto* rows =
            app_.add_option("--output-rows", a_.output_rows,
                            "Output matrix: one a head, one for all, or the target's frozen one; of CTC's prediction "
                            "network: own or target (default: medusa shared, else target)")
                ->check(CLI::IsMember({"own", "shared", "target"}));
        needs(
            rows, [](const TrainArguments& a) { return a.kind != "ctc" || a.output_rows != "shared"; },
            "shared belongs to medusa and hydra; CTC has own or target");
        needs(rows, has_prefix, kNoPrefix);
    }

    void add_ctc();
    void add_heads();
    void add_layer();

private:
    static bool has_prefix(const TrainArguments& a) { return a.conditioning != "none"; }
    static constexpr const char* kNoPrefix = "is of the prediction network, which --conditioning none leaves out";

    CLI::App& app_;
    TrainArguments& a_;
    Conditions conditions_;
};

void SizeOptions::add_ctc() {
    const Kinds ctc{"ctc"};
    of(ctc, app_.add_option("--loss", a_.loss, "ctc: the paper's (default: prefix)"))
        ->check(CLI::IsMember({"prefix", "ctc"}));
    of(ctc, app_.add_option("--conditioning", a_.conditioning,
                            "What frames know of the drafted prefix; none: the paper's way (default: prefix)"))
        ->check(CLI::IsMember({"prefix", "none"}));
    of(ctc, app_.add_option("--frames", a_.frames, "Frames of one pass (default: 8)"))
        ->transform(within(ranges::kFrames));
    of(ctc, app_.add_option("--labels", a_.labels, "Tokens of the text that a position's loss looks at (default: 6)"))
        ->transform(within(ranges::kLabels));
    of(ctc, app_.add_option("--feature-layers", a_.feature_layers,
                            "Read the hidden states after these layers of the model as well, as in 4,16,27"))
        ->delimiter(',')
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false)
        ->transform(within(ranges::kFeatureLayer))
        ->type_name("LAYERS");
    of(ctc, app_.add_option("--layers", a_.layers, "Decoder layers that frames go through (default: 1)"))
        ->transform(within(ranges::kDecoderLayers));
    auto* rank =
        of(ctc, app_.add_option("--prefix-rank", a_.prefix_rank, "Width of the prediction network (default: 1024)"))
            ->transform(within(ranges::kPrefixRank));
    auto* bottleneck =
        of(ctc, app_.add_option("--prefix-bottleneck", a_.prefix_bottleneck,
                                "Width of what the prediction network's output rows see; 0, or no less than the "
                                "network: as wide as that (default: 256)"))
            ->transform(within(ranges::kPrefixBottleneck));
    needs(rank, has_prefix, kNoPrefix);
    needs(bottleneck, has_prefix, kNoPrefix);
}

void SizeOptions::add_heads() {
    const Kinds heads{"medusa", "hydra"}, hydra{"hydra"};
    of(heads, app_.add_option("--draft-heads", a_.draft_heads, "Depth of drafts (default: medusa 5, hydra 4)"))
        ->transform(within(ranges::kDraftHeads));
    of(heads, app_.add_option("--blocks", a_.blocks, "Layers of each head (default: 1)"))
        ->transform(within(ranges::kBlocks));
    of(hydra,
       app_.add_option("--prefix-layer", a_.prefix_layer, "Hydra++: a decoder layer over the text (default: on)"))
        ->check(CLI::IsMember({"on", "off"}));
    of(hydra,
       app_.add_option("--residual", a_.residual,
                       "What a head's first layer adds to: the feature, or a matrix of all it sees, as published "
                       "(default: feature)"))
        ->check(CLI::IsMember({"feature", "matrix"}));
    auto* bias = of(hydra, app_.add_flag("--output-bias", a_.output_bias,
                                         "A bias beside own or shared output matrices, as published"));
    needs(
        bias, [](const TrainArguments& a) { return a.output_rows == "own" || a.output_rows == "shared"; },
        "needs --output-rows own or shared");
}

void SizeOptions::add_layer() {
    const Kinds layer{"ctc", "hydra"};
    const auto sizes = {
        of(layer, app_.add_option("--attention-heads", a_.attention_heads,
                                  "Of the decoder layer; 0, the default: by hidden size"))
            ->transform(within(ranges::kLayerHeads)),
        of(layer, app_.add_option(
                      "--kv-heads", a_.kv_heads,
                      "Of the decoder layer; 0, the default: a third of its heads, or the next fewer that divide them"))
            ->transform(within(ranges::kLayerHeads)),
        of(layer, app_.add_option("--intermediate", a_.intermediate, "Of its MLP; 0, the default: 8/3 of hidden"))
            ->transform(within(ranges::kLayerIntermediate))};
    for (CLI::Option* size : sizes)
        needs(
            size, [](const TrainArguments& a) { return a.prefix_layer != "off"; },
            "is of the decoder layer, which --prefix-layer off leaves out");
}

}  // namespace

void add_train(CLI::App& app, TrainArguments& a) {
    add_model(app, a.model);
    app.add_option("--kind", a.kind, "Kind of drafter; hydra with its prefix layer is Hydra++")
        ->required()
        ->check(CLI::IsMember({"ctc", "medusa", "hydra"}));
    app.add_option("-o,--output", a.output, "Folder of the drafter; its checkpoint goes there too")->required();
    add_text_to_train(app, a);
    add_schedule(app, a);
    add_course(app, a);
    SizeOptions sizes(app, a);
    sizes.add_common();
    sizes.add_ctc();
    sizes.add_heads();
    sizes.add_layer();
}

}  // namespace outrider::cli
