// The part of a tree that a text may still use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// `tree` without its nodes deeper than `depth`, in the same order; the tree itself when nothing is that deep. So near
/// its end a text never pays for nodes that it could not emit, nor passes the target's context.
[[nodiscard]] inline TokenTree limit_depth(TokenTree tree, std::int64_t depth) {
    if (tree.height() <= depth) return tree;
    TokenTree::Builder kept(tree.token(0), tree.size());
    std::vector<NodeIndex> place(tree.size(), 0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        if (tree.depths()[i] > depth) continue;
        const NodeIndex parent = place[static_cast<std::size_t>(tree.parents()[i])];
        place[i] = kept.add(parent, tree.tokens()[i], tree.log_q()[i]);
    }
    return std::move(kept).build();
}

}  // namespace outrider
