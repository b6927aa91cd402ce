// The draft of one sequence in one round: an immutable tree in parallel arrays, the single source of truth from which
// masks, positions and paths are derived (tree_layout.hpp).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// Node 0 is the root: the pending token, chosen by the target but not yet in its KV cache. Every other node follows
/// its parent in the arrays, and no two children of one node carry the same token.
class TokenTree {
public:
    class Builder;

    /// The tree of plain decoding: the pending token alone.
    [[nodiscard]] static TokenTree root_only(TokenId pending);

    [[nodiscard]] std::size_t size() const noexcept { return token_.size(); }
    /// Nodes below the root.
    [[nodiscard]] std::size_t drafted() const noexcept { return token_.size() - 1; }

    /// [size] token of each node.
    [[nodiscard]] std::span<const TokenId> tokens() const noexcept { return token_; }
    /// [size] parent of each node, kNoNode for the root; parent[i] < i.
    [[nodiscard]] std::span<const NodeIndex> parents() const noexcept { return parent_; }
    /// [size] natural log of the drafter's conditional probability of a node given its parent; 0 for the root.
    [[nodiscard]] std::span<const float> log_q() const noexcept { return log_q_; }
    /// [size] 0 for the root, parent's depth + 1 otherwise.
    [[nodiscard]] std::span<const NodeIndex> depths() const noexcept { return depth_; }
    /// Largest depth.
    [[nodiscard]] NodeIndex height() const noexcept { return height_; }

    [[nodiscard]] TokenId token(NodeIndex node) const { return token_[static_cast<std::size_t>(node)]; }
    [[nodiscard]] NodeIndex parent(NodeIndex node) const { return parent_[static_cast<std::size_t>(node)]; }
    [[nodiscard]] NodeIndex depth(NodeIndex node) const { return depth_[static_cast<std::size_t>(node)]; }

    /// The child of `node` that carries `token`, or kNoNode. O(size - node).
    [[nodiscard]] NodeIndex child(NodeIndex node, TokenId token) const noexcept {
        for (auto i = static_cast<std::size_t>(node) + 1; i < token_.size(); ++i)
            if (parent_[i] == node && token_[i] == token) return static_cast<NodeIndex>(i);
        return kNoNode;
    }

private:
    TokenTree() = default;

    std::vector<TokenId> token_;
    std::vector<NodeIndex> parent_;
    std::vector<float> log_q_;
    std::vector<NodeIndex> depth_;
    NodeIndex height_ = 0;
};

/// Grows a tree node by node; `build` hands it over. Adding a token that its parent already has returns that child, so
/// duplicates merge by token path.
class TokenTree::Builder {
public:
    explicit Builder(TokenId pending, std::size_t expected_nodes = 16) {
        tree_.token_.reserve(expected_nodes + 1);
        tree_.parent_.reserve(expected_nodes + 1);
        tree_.log_q_.reserve(expected_nodes + 1);
        tree_.depth_.reserve(expected_nodes + 1);
        push(pending, kNoNode, 0.0F, 0);
    }

    /// Adds a child of `parent`, or returns the one that is there. log_q <= 0.
    NodeIndex add(NodeIndex parent, TokenId token, float log_q) {
        require(parent >= 0 && static_cast<std::size_t>(parent) < tree_.size(),
                "TokenTree: parent {} does not exist; the tree has {} nodes and parents come first", parent,
                tree_.size());
        require(token >= 0, "TokenTree: token {} is not a vocabulary index (CTC's blank is never a token)", token);
        if (const NodeIndex there = tree_.child(parent, token); there != kNoNode) return there;
        return push(token, parent, log_q, tree_.depth(parent) + 1);
    }

    [[nodiscard]] std::size_t size() const noexcept { return tree_.size(); }
    [[nodiscard]] const TokenTree& view() const noexcept { return tree_; }
    [[nodiscard]] TokenTree build() && { return std::move(tree_); }

private:
    NodeIndex push(TokenId token, NodeIndex parent, float log_q, NodeIndex depth) {
        tree_.token_.push_back(token);
        tree_.parent_.push_back(parent);
        tree_.log_q_.push_back(log_q);
        tree_.depth_.push_back(depth);
        if (depth > tree_.height_) tree_.height_ = depth;
        return static_cast<NodeIndex>(tree_.token_.size() - 1);
    }

    TokenTree tree_;
};

inline TokenTree TokenTree::root_only(TokenId pending) { return Builder(pending, 0).build(); }

class DraftSamples;  // accept/rules/draft_samples.hpp

/// One sequence's draft. A drafter that samples says what it drew; its other nodes must not depend on the draws.
struct SequenceTree {
    SequenceId sequence = 0;
    TokenTree tree;
    std::shared_ptr<const DraftSamples> samples = nullptr;  ///< null: every node was chosen, none drawn
};

}  // namespace outrider
