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
void append_labels(std::vector<std::int64_t>& wanted, const std::vector<TokenId>& text, std::int64_t n,
                   std::span<const std::int32_t> column, const AnchorNeeds& needs) {
    bool usable = true;
    for (std::int64_t k = 1; k <= needs.labels; ++k) {
        const std::int64_t label = token_at(text, n + k);
        const std::int32_t at = label < 0 ? -1 : column[static_cast<std::size_t>(label)];
        usable = (usable || !needs.label_ends) && at >= 0;
        wanted.push_back(usable ? at : -1);
    }
}

using Longs = std::vector<std::int64_t>;

/// All that is known of a batch without its features.
struct BatchNumbers {
    Longs next, positions, row, committed, last, last_but_one, labels;
    Longs ahead;                    // [U][A] rows of features, in those of whole conversations one after another
    Longs context, anchors, place;  // PaddedGroups
};

/// Adds a group, whose context has `rows` rows from batch.context_begin.back() on.
void append(BatchNumbers& all, const AnchorGroup& group, const std::vector<TokenId>& text, std::int64_t begin,
            std::int64_t rows, std::span<const std::int32_t> column, const AnchorNeeds& needs) {
    for (std::int64_t j = 0; j < rows; ++j)
        all.next.push_back(text[static_cast<std::size_t>(j + 1)]), all.positions.push_back(j);
    for (const std::int64_t n : group.committed) {
        all.row.push_back(begin + n - 1);
        all.committed.push_back(n);
        for (std::int64_t p = 0; p < needs.prefixes; ++p)
            all.last.push_back(token_at(text, n + p)), all.last_but_one.push_back(token_at(text, n + p - 1));
        append_labels(all.labels, text, n, column, needs);
    }
}

/// For a teacher: rows of the features that the labels were written from.
Longs rows_ahead(std::span<const AnchorGroup> groups, std::span<const at::Tensor> whole, std::int64_t labels) {
    Longs rows;
    for (std::int64_t k = 0; k < labels; ++k) {
        std::int64_t begin = 0;
        for (std::size_t i = 0; i < groups.size(); begin += whole[i++].size(0))
            for (const std::int64_t n : groups[i].committed)
                rows.push_back(begin + std::min(n + k, whole[i].size(0) - 1));
    }
    return rows;
}

/// Groups up to the longest; what is beside them is any row.
std::pair<std::int64_t, std::int64_t> pad(BatchNumbers& all, const AnchorBatch& batch) {
    std::int64_t longest = 0, most = *std::max_element(batch.anchors.begin(), batch.anchors.end());
    for (std::size_t g = 0; g < batch.anchors.size(); ++g)
        longest = std::max(longest, batch.context_end[g] - batch.context_begin[g]);
    std::int64_t first = 0;
    for (std::size_t g = 0; g < batch.anchors.size(); ++g) {
        for (std::int64_t i = 0; i < longest; ++i)
            all.context.push_back(std::min(batch.context_begin[g] + i, batch.context_end[g] - 1));
        for (std::int64_t i = 0; i < most; ++i) {
            if (i < batch.anchors[g]) all.place.push_back(static_cast<std::int64_t>(g) * most + i);
            all.anchors.push_back(first + std::min(i, batch.anchors[g] - 1));
        }
        first += batch.anchors[g];
    }
    return {longest, most};
}

/// One tensor of all numbers, which travels as one; its parts in their order.
std::vector<at::Tensor> placed(const std::vector<const Longs*>& parts, at::Device device) {
    std::size_t count = 0;
    for (const Longs* part : parts) count += part->size();
    const auto longs = at::TensorOptions().dtype(at::kLong);
    const at::Tensor staged = at::empty({static_cast<std::int64_t>(count)}, longs.pinned_memory(!device.is_cpu()));
    auto* to = staged.mutable_data_ptr<std::int64_t>();
    for (const Longs* part : parts) to = std::copy(part->begin(), part->end(), to);
    const at::Tensor all = staged.to(device, /*non_blocking=*/true);
    std::vector<at::Tensor> result;
    std::int64_t begin = 0;
    for (const Longs* part : parts) {
        result.push_back(all.slice(0, begin, begin + std::ssize(*part)));
        begin += std::ssize(*part);
    }
    return result;
}

}  // namespace

AnchorBatch make_anchor_batch(std::span<const AnchorGroup> groups, std::span<const Conversation> conversations,
                              FeatureStore& store, std::span<const std::int32_t> column, const AnchorNeeds& needs) {
    AnchorBatch batch;
    BatchNumbers all;
    std::vector<at::Tensor> features, whole;
    for (const AnchorGroup& group : groups) {
        const std::int64_t rows = *std::max_element(group.committed.begin(), group.committed.end());
        const auto begin = static_cast<std::int64_t>(all.next.size());
        batch.context_begin.push_back(begin);
        batch.context_end.push_back(begin + rows);
        batch.anchors.push_back(static_cast<std::int64_t>(group.committed.size()));
        whole.push_back(store.features(group.conversation));
        features.push_back(whole.back().slice(0, 0, rows));
        append(all, group, conversations[group.conversation].tokens, begin, rows, column, needs);
    }
    const at::Device device = store.device();
    std::pair<std::int64_t, std::int64_t> longest;
    if (needs.ahead) all.ahead = rows_ahead(groups, whole, needs.labels);
    if (!device.is_cpu()) longest = pad(all, batch);
    const auto A = static_cast<std::int64_t>(all.row.size()), G = static_cast<std::int64_t>(groups.size());
    const std::vector<at::Tensor> parts =
        placed({&all.next, &all.positions, &all.row, &all.committed, &all.last, &all.last_but_one, &all.labels,
                &all.ahead, &all.context, &all.anchors, &all.place},
               device);
    batch.features = at::cat(features);
    batch.next = parts[0], batch.positions = parts[1], batch.row = parts[2], batch.committed = parts[3];
    batch.last = parts[4].view({A, needs.prefixes}), batch.last_but_one = parts[5].view({A, needs.prefixes});
    batch.labels = parts[6].view({A, needs.labels});
    if (device.is_cpu()) batch.labels = batch.labels.to(at::kInt);
    if (needs.ahead)
        batch.ahead = at::cat(whole)
                          .slice(1, 0, store.hidden())
                          .index_select(0, parts[7])
                          .view({needs.labels, A, store.hidden()});
    if (!device.is_cpu())
        batch.padded = {parts[8].view({G, longest.first}), parts[9].view({G, longest.second}), parts[10]};
    return batch;
}

}  // namespace outrider
