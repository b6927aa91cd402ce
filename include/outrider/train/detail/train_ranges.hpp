// What the numbers of a training may be. Training refuses all else, and the program's command line asks the same
// ranges.
#pragma once

#include <cstdint>

#include <outrider/core/detail/range.hpp>

namespace outrider::ranges {

using Whole = Range<std::int64_t>;
using Share = Range<double>;
inline constexpr double kLongTime = 1e9;

// TrainOptions
inline constexpr Whole kLimit{.low = 0};
inline constexpr Whole kConversationTokens{.low = 4};
inline constexpr Whole kHeldOut{.low = 1};
inline constexpr Whole kVocabulary{.low = 0};  // 0: by the text
inline constexpr Share kLabelDecay{.low = 0, .high = 1, .bounds = Bounds::open_below};
inline constexpr Share kLearningRate{.low = 0, .high = 1};
inline constexpr Share kPartOfRun{.low = 0, .high = 1};
inline constexpr Share kWeightDecay{.low = 0, .high = 1};
inline constexpr Range<double> kClip{.low = 0, .high = 1e9, .bounds = Bounds::open_below};
inline constexpr Share kEma{.low = 0, .high = 1, .bounds = Bounds::open_above};
inline constexpr Whole kBatchAnchors{.low = 1};
inline constexpr Whole kGroupAnchors{.low = 0};  // 0: as the kind likes
inline constexpr Range<double> kMinutes{.low = 0, .high = kLongTime, .bounds = Bounds::open_below};
inline constexpr Whole kAnchors{.low = 0};  // 0: planned by minutes
inline constexpr Range<double> kInterval{.low = 0, .high = kLongTime};
inline constexpr Whole kEvaluateConversations{.low = 1};

// Sizes and losses of the kinds
inline constexpr Share kTeacher{.low = 0, .high = 1};
inline constexpr Whole kFrames{.low = 1, .high = 64};
inline constexpr Whole kLabels{.low = 1, .high = 15};
inline constexpr Whole kFeatureLayer{.low = 1, .high = 4096};
inline constexpr Whole kDecoderLayers{.low = 1, .high = 16};
inline constexpr Whole kPrefixRank{.low = 1, .high = 1 << 20};
inline constexpr Whole kPrefixBottleneck{.low = 0, .high = 1 << 20};  // 0: none
inline constexpr Whole kDraftHeads{.low = 1, .high = 15};
inline constexpr Whole kBlocks{.low = 1, .high = 64};
inline constexpr Whole kLayerHeads{.low = 0, .high = 1 << 20};         // 0: by hidden size
inline constexpr Whole kLayerIntermediate{.low = 0, .high = 1 << 20};  // 0: by hidden size

}  // namespace outrider::ranges
