// What a training is refused for before it begins.
#include <outrider/train/train.hpp>

#include <outrider/core/error.hpp>
#include <outrider/core/detail/option_ranges.hpp>

namespace outrider {

void check_options(const TrainOptions& o) {
    constexpr std::string_view where = "train";
    require(!o.output.empty(), "train: no output folder given");
    require_in(ranges::kConversationTokens, o.conversations.max_tokens, where, "the most tokens of a conversation");
    require_in(ranges::kLimit, o.conversations.limit, where, "the limit of conversations");
    require_in(ranges::kHeldOut, o.held_out, where, "the number of held-out conversations");
    require_in(ranges::kVocabulary, o.vocabulary, where, "the draft vocabulary");
    require_in(ranges::kLabelDecay, o.label_decay, where, "label_decay");
    require_in(ranges::kLearningRate, o.learning_rate, where, "learning_rate");
    require_in(ranges::kPartOfRun, o.warmup, where, "warmup");
    require_in(ranges::kPartOfRun, o.final_rate, where, "final_rate");
    require_in(ranges::kWeightDecay, o.weight_decay, where, "weight_decay");
    require_in(ranges::kClip, o.clip, where, "clip");
    require_in(ranges::kEma, o.ema, where, "ema");
    require_in(ranges::kBatchAnchors, o.batch_anchors, where, "batch_anchors");
    require_in(ranges::kGroupAnchors, o.group_anchors, where, "group_anchors");
    require_in(ranges::kAnchors, o.anchors, where, "anchors");
    if (o.anchors == 0) require_in(ranges::kMinutes, o.minutes, where, "minutes");
    require_in(ranges::kInterval, o.report_seconds, where, "report_seconds");
    require_in(ranges::kInterval, o.checkpoint_minutes, where, "checkpoint_minutes");
    require_in(ranges::kInterval, o.evaluate_minutes, where, "evaluate_minutes");
    require_in(ranges::kEvaluateConversations, o.evaluate_conversations, where, "evaluate_conversations");
    require_in(ranges::kThreads, o.threads, where, "threads");
    require(!o.features_only || !o.stored_features,
            "train: features are to be computed and to be left as they are; choose one");
    require(!o.resume || !o.overwrite, "train: a run is to be resumed and to be replaced; choose one");
}

}  // namespace outrider
