#include "anchor_batches.hpp"

#include <algorithm>
#include <numeric>

#include <outrider/core/detail/rng.hpp>
#include <outrider/core/error.hpp>

namespace outrider {

namespace {

/// Fisher and Yates, with draws that depend on `key` alone.
template <typename T>
void shuffle(std::vector<T>& items, std::uint64_t key) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[mix64(key ^ mix64(i)) % i]);
}

std::uint64_t key_of(std::uint64_t seed, std::int64_t epoch, std::uint64_t what) {
    return mix64(mix64(mix64(seed) ^ static_cast<std::uint64_t>(epoch)) ^ what);
}

}  // namespace

std::vector<AnchorGroup> anchor_groups(const Conversation& conversation, std::size_t index, std::int64_t size,
                                       std::uint64_t key, std::int64_t part, std::int64_t parts) {
    std::vector<std::int64_t> all;
    const auto length = static_cast<std::int64_t>(conversation.tokens.size());
    for (std::int64_t n = std::max<std::int64_t>(1, conversation.answer - 1); n + 1 < length; ++n) all.push_back(n);
    shuffle(all, mix64(key ^ static_cast<std::uint64_t>(index)));
    const auto count = static_cast<std::int64_t>(all.size());
    all = {all.begin() + count * part / parts, all.begin() + count * (part + 1) / parts};
    std::vector<AnchorGroup> groups;
    for (std::size_t begin = 0; begin < all.size(); begin += static_cast<std::size_t>(size)) {
        const std::size_t end = std::min(all.size(), begin + static_cast<std::size_t>(size));
        groups.push_back(
            {index,
             {all.begin() + static_cast<std::ptrdiff_t>(begin), all.begin() + static_cast<std::ptrdiff_t>(end)}});
    }
    return groups;
}

AnchorSampler::AnchorSampler(std::span<const Conversation> conversations, std::vector<std::size_t> shards,
                             std::int64_t group_anchors, std::int64_t batch_anchors, std::uint64_t seed)
    : conversations_(conversations),
      shards_(std::move(shards)),
      group_anchors_(group_anchors),
      batch_anchors_(batch_anchors),
      seed_(seed) {
    require(!shards_.empty(), "AnchorSampler: no shards to train on");
    fill();
}

/// Shards of the current block of the epoch. The first epoch takes them as they stand: their order is a hash's already.
std::vector<std::size_t> AnchorSampler::block_order() const {
    std::vector<std::size_t> shards = shards_;
    if (place_.epoch > 0) shuffle(shards, key_of(seed_, place_.epoch, 0));
    const std::size_t block = place_.epoch > 0 ? shards.size() : kBlock;
    const std::size_t from = static_cast<std::size_t>(place_.block) * block;
    if (from >= shards.size()) return {};
    return {shards.begin() + static_cast<std::ptrdiff_t>(from),
            shards.begin() + static_cast<std::ptrdiff_t>(std::min(shards.size(), from + block))};
}

void AnchorSampler::fill() {
    groups_.clear();
    const std::uint64_t key = key_of(seed_, place_.epoch, 1 + static_cast<std::uint64_t>(place_.block));
    for (const std::size_t shard : block_order())
        for (std::size_t i = shard * FeatureStore::kShard;
             i < std::min(conversations_.size(), (shard + 1) * FeatureStore::kShard); ++i) {
            // The key of the cut must be the same in every epoch, else the thirds overlap.
            auto groups = anchor_groups(conversations_[i], i, group_anchors_, seed_, place_.epoch % kThirds, kThirds);
            std::move(groups.begin(), groups.end(), std::back_inserter(groups_));
        }
    shuffle(groups_, key);
}

void AnchorSampler::restore(Place place) {
    place_ = place;
    fill();
}

std::vector<AnchorGroup> AnchorSampler::next() {
    std::vector<AnchorGroup> batch;
    for (std::int64_t anchors = 0; anchors < batch_anchors_;) {
        while (place_.group >= static_cast<std::int64_t>(groups_.size())) {
            place_.group = 0;
            ++place_.block;
            if (block_order().empty()) place_.block = 0, ++place_.epoch;
            fill();
        }
        AnchorGroup& group = groups_[static_cast<std::size_t>(place_.group++)];
        anchors += static_cast<std::int64_t>(group.committed.size());
        batch.push_back(group);
    }
    return batch;
}

namespace {

/// The token at a place, -1 behind the end.
std::int64_t token_at(const std::vector<TokenId>& text, std::int64_t i) {
    return i < static_cast<std::int64_t>(text.size()) ? std::int64_t{text[static_cast<std::size_t>(i)]}
                                                      : std::int64_t{-1};
}

/// Columns of the labels of the anchor with n committed tokens.
void append_labels(std::vector<std::int32_t>& wanted, const std::vector<TokenId>& text, std::int64_t n,
                   std::span<const std::int32_t> column, const AnchorNeeds& needs) {
    bool usable = true;
    for (std::int64_t k = 1; k <= needs.labels; ++k) {
        const std::int64_t label = token_at(text, n + k);
        const std::int32_t at = label < 0 ? -1 : column[static_cast<std::size_t>(label)];
        usable = (usable || !needs.label_ends) && at >= 0;
        wanted.push_back(usable ? at : -1);
    }
}

/// [U, anchors, H] of one group.
at::Tensor features_ahead(const AnchorGroup& group, const at::Tensor& features, std::int64_t labels) {
    std::vector<std::int64_t> rows;
    for (std::int64_t k = 0; k < labels; ++k)
        for (const std::int64_t n : group.committed) rows.push_back(std::min(n + k, features.size(0) - 1));
    return features.index_select(0, at::tensor(rows, at::kLong))
        .view({labels, static_cast<std::int64_t>(group.committed.size()), features.size(1)});
}

}  // namespace

AnchorBatch make_anchor_batch(std::span<const AnchorGroup> groups, std::span<const Conversation> conversations,
                              FeatureStore& store, std::span<const std::int32_t> column, const AnchorNeeds& needs) {
    AnchorBatch batch;
    std::vector<std::int64_t> next, positions, row, committed, last, second;
    std::vector<std::int32_t> wanted;
    std::vector<at::Tensor> features, ahead;
    for (const AnchorGroup& group : groups) {
        const std::vector<TokenId>& text = conversations[group.conversation].tokens;
        const std::int64_t rows = *std::max_element(group.committed.begin(), group.committed.end());
        const auto begin = static_cast<std::int64_t>(next.size());
        batch.context_begin.push_back(begin);
        batch.context_end.push_back(begin + rows);
        batch.anchors.push_back(static_cast<std::int64_t>(group.committed.size()));
        const at::Tensor all = store.features(group.conversation);
        features.push_back(all.slice(0, 0, rows));
        if (needs.ahead) ahead.push_back(features_ahead(group, all.slice(1, 0, store.hidden()), needs.labels));
        for (std::int64_t j = 0; j < rows; ++j)
            next.push_back(text[static_cast<std::size_t>(j + 1)]), positions.push_back(j);
        for (const std::int64_t n : group.committed) {
            row.push_back(begin + n - 1);
            committed.push_back(n);
            for (std::int64_t p = 0; p < needs.prefixes; ++p)
                last.push_back(token_at(text, n + p)), second.push_back(token_at(text, n + p - 1));
            append_labels(wanted, text, n, column, needs);
        }
    }
    const auto A = static_cast<std::int64_t>(row.size());
    batch.next = at::tensor(next, at::kLong), batch.positions = at::tensor(positions, at::kLong);
    batch.features = at::cat(features);
    batch.row = at::tensor(row, at::kLong), batch.committed = at::tensor(committed, at::kLong);
    batch.last = at::tensor(last, at::kLong).view({A, needs.prefixes}),
    batch.last_but_one = at::tensor(second, at::kLong).view({A, needs.prefixes});
    batch.labels = at::tensor(wanted, at::kInt).view({A, needs.labels});
    if (needs.ahead) batch.ahead = at::cat(ahead, 1);
    return batch;
}

}  // namespace outrider
