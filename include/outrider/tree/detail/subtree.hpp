// A part of a tree that is a tree again.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// `tree` without the nodes for which keep(tree, node) is false, and without all that stands below those, in the same
/// order; the tree itself where nothing goes. The root is not asked for.
template <typename Keep>
[[nodiscard]] TokenTree subtree(TokenTree tree, Keep&& keep) {
    std::vector<NodeIndex> place(tree.size(), kNoNode);
    place[0] = 0;
    std::size_t kept = 1;
    for (std::size_t i = 1; i < tree.size(); ++i)
        if (place[static_cast<std::size_t>(tree.parents()[i])] != kNoNode &&
            keep(std::as_const(tree), static_cast<NodeIndex>(i)))
            place[i] = static_cast<NodeIndex>(kept++);
    if (kept == tree.size()) return tree;
    TokenTree::Builder part(tree.token(0), kept - 1);
    for (std::size_t i = 1; i < tree.size(); ++i)
        if (place[i] != kNoNode)
            part.add(place[static_cast<std::size_t>(tree.parents()[i])], tree.tokens()[i], tree.log_q()[i]);
    return std::move(part).build();
}

}  // namespace outrider
