// Pure functions of a tree's parent array: positions, visibility, paths. Nothing here is stored or patched; a changed
// tree is a new tree.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

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
