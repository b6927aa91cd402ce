// Which anchors make a batch, and the tensors of one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include <outrider/train/train.hpp>
#include <outrider/draft/nn/detail/padded_context.hpp>
#include "train/feature_store.hpp"

namespace outrider {

/// Anchors of one conversation that share its context. An anchor is a number n of committed tokens: token n is pending,
/// the labels begin at n + 1.
struct AnchorGroup {
    std::size_t conversation = 0;
    std::vector<std::int64_t> committed;
};

/// A third of every conversation's anchors an epoch, another third in the next, in an order that is a pure function of
/// (seed, epoch). Neighbouring anchors share most of their labels, so that a whole conversation in a row is learnt by
/// heart: texts come back later instead. The first epoch comes in blocks of kBlock shards, so that it can begin before
/// the features of all conversations are computed; later ones are one block each. What is on disk already decides
/// nothing.
class AnchorSampler {
public:
    struct Place {
        std::int64_t epoch = 0, block = 0, group = 0;
    };
    static constexpr std::size_t kBlock = 32;
    static constexpr std::int64_t kThirds = 3;

    /// `shards`: numbers of those to train on.
    AnchorSampler(std::span<const Conversation> conversations, std::vector<std::size_t> shards,
                  std::int64_t group_anchors, std::int64_t batch_anchors, std::uint64_t seed);

    /// Groups of the next batch, at least batch_anchors anchors together.
    [[nodiscard]] std::vector<AnchorGroup> next();

    [[nodiscard]] Place place() const noexcept { return place_; }
    void restore(Place place);

private:
    [[nodiscard]] std::vector<std::size_t> block_order() const;
    void fill();

    std::span<const Conversation> conversations_;
    std::vector<std::size_t> shards_;
    std::int64_t group_anchors_, batch_anchors_;
    std::uint64_t seed_;
    Place place_;
    std::vector<AnchorGroup> groups_;  // of the current block
};

/// Part `part` of `parts` of a conversation's anchors, shuffled by `key`, in groups of at most `size`.
[[nodiscard]] std::vector<AnchorGroup> anchor_groups(const Conversation& conversation, std::size_t index,
                                                     std::int64_t size, std::uint64_t key, std::int64_t part = 0,
                                                     std::int64_t parts = 1);

/// What a network looks at beside its context.
struct AnchorNeeds {
    std::int64_t labels = 0;    ///< U
    std::int64_t prefixes = 0;  ///< P, lengths of drafted prefixes
    /// Whether a label outside the draft vocabulary ends an anchor's labels: right for networks whose guesses depend on
    /// the labels before them, since no draft can go that way. Else only that one is left out.
    bool label_ends = true;
    bool ahead = false;  ///< the features at the labels too, for a teacher
};

/// Context rows of all groups one after another; anchors in group order. All tensors lie where the features do.
struct AnchorBatch {
    at::Tensor next;                                       ///< [N] int64 x_{j+1}
    at::Tensor features;                                   ///< [N, F] h_j, and behind it what the store has besides
    at::Tensor positions;                                  ///< [N] int64 j
    std::vector<std::int64_t> context_begin, context_end;  ///< rows of each group
    std::vector<std::int64_t> anchors;                     ///< of each group
    at::Tensor row;                                        ///< [A] int64 row of u_{n-1}
    at::Tensor committed;                                  ///< [A] int64 n
    at::Tensor last;          ///< [A, P] int64 last token of the drafted prefix of length p: the pending one at p = 0
    at::Tensor last_but_one;  ///< [A, P] int64
    at::Tensor
        labels;        ///< [A, U] columns of the draft vocabulary, int32 on the CPU and int64 elsewhere; -1: not usable
    at::Tensor ahead;  ///< [U, A, H] the feature h_{n+k-1} that the target wrote label k = 1..U of an anchor from,
                       ///< any row where the text has ended; undefined unless asked for
    PaddedGroups padded;  ///< of the groups, where the features are not on the CPU
};

/// `column` [target vocabulary]: the draft vocabulary's column of a token or -1.
[[nodiscard]] AnchorBatch make_anchor_batch(std::span<const AnchorGroup> groups,
                                            std::span<const Conversation> conversations, FeatureStore& store,
                                            std::span<const std::int32_t> column, const AnchorNeeds& needs);

}  // namespace outrider
