#include "network_learner.hpp"

#include <algorithm>

#include <outrider/train/detail/train_ranges.hpp>

namespace outrider {

void require_same_sizes(const std::filesystem::path& folder, const NamedSizes& wanted, const NamedSizes& found) {
    for (std::size_t i = 0; i < wanted.size(); ++i)
        require(wanted[i].second == found[i].second,
                "train: these options ask for {} {}, the drafter in {} has {}; train it with the sizes it has",
                wanted[i].first, wanted[i].second, folder.string(), found[i].second);
}

void check_layer(std::int64_t heads, std::int64_t kv_heads, std::int64_t intermediate) {
    require_in(ranges::kLayerHeads, heads, "train", "the number of attention heads");
    require_in(ranges::kLayerHeads, kv_heads, "train", "the number of key heads");
    require_in(ranges::kLayerIntermediate, intermediate, "train", "the intermediate size");
}

LayerChoice choose_layer(std::int64_t hidden, std::int64_t heads, std::int64_t kv_heads, std::int64_t intermediate) {
    LayerChoice layer;
    layer.head_dim = hidden % 64 == 0 ? 64 : hidden;
    layer.heads = heads > 0 ? heads : hidden / layer.head_dim;
    layer.kv_heads = kv_heads > 0 ? kv_heads : std::max<std::int64_t>(1, layer.heads / 3);
    while (kv_heads == 0 && layer.heads % layer.kv_heads != 0) --layer.kv_heads;
    layer.intermediate = intermediate > 0 ? intermediate : (hidden * 8 / 3 + 63) / 64 * 64;
    return layer;
}

std::vector<ContextGroup> context_groups(const AnchorBatch& batch, const at::Tensor& keys, const at::Tensor& values) {
    std::vector<ContextGroup> groups;
    for (std::size_t i = 0; i < batch.anchors.size(); ++i)
        groups.push_back({keys.slice(0, batch.context_begin[i], batch.context_end[i]),
                          values.slice(0, batch.context_begin[i], batch.context_end[i]), batch.anchors[i]});
    return groups;
}

}  // namespace outrider
