#include "tree_drawing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace outrider::cli {

std::string draw_tree(const TokenTree& tree, std::span<const NodeIndex> path,
                      const std::function<std::string(TokenId)>& text) {
    std::vector<std::vector<NodeIndex>> children(tree.size());
    for (std::size_t i = 1; i < tree.size(); ++i)
        children[static_cast<std::size_t>(tree.parents()[i])].push_back(static_cast<NodeIndex>(i));

    std::string out = "* " + text(tree.token(0)) + "\n";
    struct Line {
        NodeIndex node;
        std::string indent;
        bool last;
    };
    std::vector<Line> open;  // a stack: the next line to write is its back
    const auto push_children = [&](NodeIndex node, const std::string& indent) {
        const auto& below = children[static_cast<std::size_t>(node)];
        for (std::size_t i = below.size(); i-- > 0;) open.push_back({below[i], indent, i + 1 == below.size()});
    };
    push_children(0, "");
    while (!open.empty()) {
        const Line line = std::move(open.back());
        open.pop_back();
        const bool kept = std::find(path.begin(), path.end(), line.node) != path.end();
        out += fmt::format("{}{}─{} {}  {:.3f}\n", line.indent, line.last ? "└" : "├", kept ? "*" : "─",
                           text(tree.token(line.node)), std::exp(tree.log_q()[static_cast<std::size_t>(line.node)]));
        push_children(line.node, line.indent + (line.last ? "   " : "│  "));
    }
    return out;
}

}  // namespace outrider::cli
