// A draft of LmDraft in the making.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/draft/lm.hpp>

namespace outrider {

/// One sequence's draft in the making. Node 0 is the root; a node's parent stands before it.
struct LmDraft::Growing {
    struct Node {
        TokenId token = kNoToken;
        NodeIndex parent = kNoNode;
        std::int64_t depth = 0;
        double log_q = 0, path = 0;  ///< of the node given its parent; of the path
        std::int64_t row = -1;       ///< its row in a forward of the whole tree; -1: not continued
    };
    SequenceId sequence = 0;
    Known* known = nullptr;
    std::int64_t committed = 0, nodes = 0, depth = 0;
    bool is_chain = false;  ///< then rows are kept as they come, instead of running again with the next level
    std::vector<Node> tree;
    std::vector<NodeIndex> level;  ///< nodes that the next forward continues
    std::vector<TokenId> tokens;   ///< rows of the next forward
    std::vector<NodeIndex> parents;
    std::vector<NodeIndex> asked;  ///< [rows] the node whose logits are wanted, or kNoNode
    // of `sampled`
    std::vector<DraftSamples::Chain> chains;
    std::vector<NodeIndex> ends;  ///< [chains] where each stands
    std::shared_ptr<ListedLaw> law;

    [[nodiscard]] Node& at(NodeIndex node) { return tree[static_cast<std::size_t>(node)]; }

    [[nodiscard]] std::vector<TokenId> path_of(NodeIndex node) {
        std::vector<TokenId> path;
        for (; node > 0; node = at(node).parent) path.insert(path.begin(), at(node).token);
        return path;
    }

    /// The node, made if it is new.
    NodeIndex add(NodeIndex parent, TokenId token, double log_q) {
        for (std::size_t i = static_cast<std::size_t>(parent) + 1; i < tree.size(); ++i)
            if (tree[i].parent == parent && tree[i].token == token) return static_cast<NodeIndex>(i);
        tree.push_back({token, parent, at(parent).depth + 1, log_q, at(parent).path + log_q, -1});
        return static_cast<NodeIndex>(tree.size() - 1);
    }

    /// The rows of the next forward, of the nodes in `level` and what has to run before them.
    void write_rows() {
        tokens.clear(), parents.clear(), asked.clear();
        if (level.front() == 0)
            write_text();
        else if (is_chain)
            write_row(at(level.front()).token, kNoNode, level.front());
        else
            write_tree();
    }

private:
    void write_row(TokenId token, NodeIndex parent, NodeIndex node) {
        tokens.push_back(token), parents.push_back(parent), asked.push_back(node);
    }

    /// What the text has gained, and the pending token last.
    void write_text() {
        const std::vector<TokenId>& text = known->text;
        for (std::size_t i = known->held.size(); i < text.size(); ++i)
            write_row(text[i], static_cast<NodeIndex>(tokens.size()) - 1, i + 1 == text.size() ? 0 : kNoNode);
    }

    /// The nodes continued so far once more, since the cache keeps chains alone.
    void write_tree() {
        write_row(tree.front().token, kNoNode, kNoNode);
        tree.front().row = 0;
        for (const NodeIndex node : level) at(node).row = 0;
        for (std::size_t i = 1; i < tree.size(); ++i) {
            Node& node = tree[i];
            if (node.row < 0) continue;
            node.row = static_cast<std::int64_t>(tokens.size());
            const auto name = static_cast<NodeIndex>(i);
            const bool wanted = std::find(level.begin(), level.end(), name) != level.end();
            write_row(node.token, static_cast<NodeIndex>(at(node.parent).row), wanted ? name : kNoNode);
        }
    }
};

}  // namespace outrider
