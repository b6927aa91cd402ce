// The likeliest nodes of a draft in the making, as a tree.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// A node as a tree takes it; `parent` is its name in the draft.
struct DraftNode {
    NodeIndex parent = 0;
    TokenId token = kNoToken;
    float log_q = 0.0F;  ///< natural logarithm, <= 0
};

/// Of the nodes 1 to size - 1 the `most` of largest path(i), between equals the earlier ones; those of NaN or -infinity
/// are left out. Node 0 is the root. Parents stand before their children and are at least as likely, so what is kept is
/// closed under "the parent of". node(i) is asked for what is kept alone, likeliest first.
template <typename Path, typename NodeOf>
[[nodiscard]] TokenTree keep_best(TokenId pending, std::size_t size, std::int64_t most, Path&& path, NodeOf&& node) {
    constexpr double kLeftOut = -std::numeric_limits<double>::infinity();
    std::vector<std::size_t> order;
    order.reserve(size);
    for (std::size_t i = 1; i < size; ++i)
        if (path(i) > kLeftOut) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return path(a) > path(b); });
    order.resize(std::min(order.size(), static_cast<std::size_t>(std::max<std::int64_t>(most, 0))));
    TokenTree::Builder tree(pending, order.size());
    std::vector<NodeIndex> place(size, 0);
    for (const std::size_t i : order) {
        const DraftNode kept = node(i);
        place[i] = tree.add(place[static_cast<std::size_t>(kept.parent)], kept.token, kept.log_q);
    }
    return std::move(tree).build();
}

}  // namespace outrider
