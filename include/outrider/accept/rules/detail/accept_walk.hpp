// The walk that every deterministic acceptance reduces to: one pick per node, go down while the pick is a child.
#pragma once

#include <concepts>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// What a round keeps of one tree.
struct Acceptance {
    std::vector<NodeIndex> path;  ///< accepted nodes below the root, in text order
    TokenId pending = kNoToken;   ///< the next pending token: the pick at the last accepted node
};

/// Walks from the root. `pick(node)` is the token that the target chooses after `node`; it is called once for each
/// node on the accepted path, the root included, and for no other.
template <std::invocable<NodeIndex> Pick>
[[nodiscard]] Acceptance accept_walk(const TokenTree& tree, Pick&& pick) {
    Acceptance result;
    for (NodeIndex node = 0;;) {
        result.pending = pick(node);
        node = tree.child(node, result.pending);
        if (node == kNoNode) return result;
        result.path.push_back(node);
    }
}

}  // namespace outrider
