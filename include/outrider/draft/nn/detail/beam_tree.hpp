// The tree of a beam search: the likeliest prefixes of all lengths, from what each level kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/detail/keep_best.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::detail {

/// Prefixes that a beam of `nodes` keeps of a level: all there are, at most `nodes`. `columns`: V.
[[nodiscard]] inline std::int64_t beam_width(std::int64_t nodes, std::int64_t columns, std::int64_t level) {
    std::int64_t width = 1;
    for (std::int64_t d = 0; d <= level; ++d) width = std::min(nodes, width * columns);
    return width;
}

/// Levels whose prefixes can be among the `nodes` best: prefixes are not likelier than their beginnings.
[[nodiscard]] inline std::int64_t beam_levels(std::int64_t nodes, std::int64_t depth) { return std::min(nodes, depth); }

/// Whether floats can count a beam's places.
[[nodiscard]] inline bool beam_fits(std::int64_t nodes, std::int64_t columns) {
    return nodes > 0 && nodes * columns < (std::int64_t{1} << 24);
}

/// `found`: of each level the log Psi of its prefixes and their places, parent V + column. The `nodes` best whose Psi
/// is above `least`; between equals the shorter one. Prefixes of NaN are left out.
[[nodiscard]] inline TokenTree beam_tree(std::span<const float> found, std::int64_t nodes, std::int64_t depth,
                                         double least, TokenId pending, std::span<const TokenId> vocabulary) {
    struct Node {
        double log_psi = 0.0;
        std::size_t parent = 0, column = 0;
    };
    const auto columns = std::ssize(vocabulary);
    const double bar = std::log(least), smallest = std::log(std::numeric_limits<float>::min());
    std::vector<Node> all(1);
    std::size_t above = 0, at = 0;  // where the level before begins, and where this one does in `found`
    for (std::int64_t d = 0; d < beam_levels(nodes, depth); ++d) {
        const auto width = static_cast<std::size_t>(beam_width(nodes, columns, d));
        const std::size_t begin = all.size();
        for (std::size_t i = 0; i < width; ++i) {
            const auto place = static_cast<std::size_t>(found[at + width + i]);
            Node node{.parent = d == 0 ? 0 : above + place / vocabulary.size(), .column = place % vocabulary.size()};
            const double over = all[node.parent].log_psi;
            node.log_psi = std::min(static_cast<double>(found[at + i]), over);
            if (!(node.log_psi > bar && node.log_psi - over >= smallest))
                node.log_psi = -std::numeric_limits<double>::infinity();
            all.push_back(node);
        }
        above = begin, at += 2 * width;
    }
    return keep_best(
        pending, all.size(), nodes, [&](std::size_t i) { return all[i].log_psi; },
        [&](std::size_t i) {
            const Node& node = all[i];
            return DraftNode{static_cast<NodeIndex>(node.parent), vocabulary[node.column],
                             static_cast<float>(node.log_psi - all[node.parent].log_psi)};
        });
}

/// One tree for each pending token, of rows of `found` that lie one after another.
[[nodiscard]] inline std::vector<TokenTree> beam_trees(std::span<const float> found, std::int64_t nodes,
                                                       std::int64_t depth, double least,
                                                       std::span<const TokenId> pending,
                                                       std::span<const TokenId> vocabulary) {
    std::vector<TokenTree> trees;
    const std::size_t each = found.size() / std::max<std::size_t>(pending.size(), 1);
    for (std::size_t i = 0; i < pending.size(); ++i)
        trees.push_back(beam_tree(found.subspan(i * each, each), nodes, depth, least, pending[i], vocabulary));
    return trees;
}

}  // namespace outrider::detail
