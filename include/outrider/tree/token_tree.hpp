// The draft of one sequence in one round: an immutable tree in parallel arrays, the single source of truth, and the
// pure functions of its parent array from which positions, masks and paths are derived.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

class DraftSamples;      // accept/rules/draft_samples.hpp
struct SamplingOptions;  // core/options.hpp

/// One sequence's draft. A drafter that samples says what it drew; its other nodes must not depend on the draws.
struct SequenceTree {
    SequenceId sequence = 0;
    TokenTree tree;
    std::shared_ptr<const DraftSamples> samples = nullptr;  ///< null: every node was chosen, none drawn
    // What is read of the target's answer, set by the decoder.
    bool logits = true;                      ///< false: nobody reads its rows of logits, their argmax is enough
    const SamplingOptions* picks = nullptr;  ///< else the token that Match picks of a row will do where the target
                                             ///< tells it (TreeOutput::picks); owned by the caller, for the call
};

/// Position of each node in the text: committed + depth (the root sits at `committed`). [size]
[[nodiscard]] inline std::vector<std::int64_t> positions(const TokenTree& tree, std::int64_t committed) {
    std::vector<std::int64_t> result(tree.size());
    for (std::size_t i = 0; i < tree.size(); ++i) result[i] = committed + tree.depths()[i];
    return result;
}

/// Which nodes each node sees beside the committed text: its ancestors and itself, one bit a node.
class Visibility {
public:
    explicit Visibility(std::span<const NodeIndex> parents)
        : size_(parents.size()), words_((parents.size() + 63) / 64), bits_(size_ * words_, 0) {
        for (std::size_t i = 0; i < size_; ++i) {
            if (parents[i] != kNoNode) {
                const auto above = static_cast<std::size_t>(parents[i]) * words_;
                for (std::size_t w = 0; w < words_; ++w) bits_[i * words_ + w] = bits_[above + w];
            }
            bits_[i * words_ + i / 64] |= std::uint64_t{1} << (i % 64);
        }
    }

    [[nodiscard]] bool sees(NodeIndex node, NodeIndex other) const {
        const auto i = static_cast<std::size_t>(node), j = static_cast<std::size_t>(other);
        return (bits_[i * words_ + j / 64] >> (j % 64)) & 1U;
    }

    /// 64-bit words of one row.
    [[nodiscard]] std::size_t words() const noexcept { return words_; }
    /// [words] the row of `node`; bit j says whether it sees node j.
    [[nodiscard]] std::span<const std::uint64_t> row(NodeIndex node) const {
        return std::span(bits_).subspan(static_cast<std::size_t>(node) * words_, words_);
    }

private:
    std::size_t size_, words_;
    std::vector<std::uint64_t> bits_;
};

/// The nodes from just below the root to `node`, in text order; empty for the root.
[[nodiscard]] inline std::vector<NodeIndex> path_to(const TokenTree& tree, NodeIndex node) {
    std::vector<NodeIndex> path;
    for (; node > 0; node = tree.parent(node)) path.push_back(node);
    std::reverse(path.begin(), path.end());
    return path;
}

/// The nodes without children, in node order.
[[nodiscard]] inline std::vector<NodeIndex> leaves(const TokenTree& tree) {
    std::vector<bool> inner(tree.size(), false);
    for (std::size_t i = 1; i < tree.size(); ++i) inner[static_cast<std::size_t>(tree.parents()[i])] = true;
    std::vector<NodeIndex> result;
    for (std::size_t i = 0; i < tree.size(); ++i)
        if (!inner[i]) result.push_back(static_cast<NodeIndex>(i));
    return result;
}

}  // namespace outrider
