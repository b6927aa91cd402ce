// Bodies of path_search.hpp.
#pragma once

#include <outrider/draft/nn/detail/path_search.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include <outrider/draft/nn/detail/row_team.hpp>
#include <outrider/draft/nn/detail/score_rows.hpp>
#include <outrider/tree/detail/keep_best.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE void PathSearch::start(std::span<const TokenId> pending) {
    growths_.assign(pending.size(), {});
    for (std::size_t i = 0; i < pending.size(); ++i) {
        growths_[i].nodes.push_back({.token = pending[i]});
        growths_[i].open.push_back(0);
    }
}

OUTRIDER_INLINE void PathSearch::pass(std::vector<Place>& wave, std::size_t columns, const Score& score,
                                      const std::function<void(Place, const float*)>& expand) {
    const auto node = [&](Place at) -> const Node& {
        return growths_[at.first].nodes[static_cast<std::size_t>(at.second)];
    };
    std::stable_sort(wave.begin(), wave.end(), [&](Place a, Place b) { return node(a).depth < node(b).depth; });
    paths_.clear();
    std::vector<std::size_t> begins;
    for (const Place& at : wave) {
        begins.push_back(paths_.size());
        for (NodeIndex n = at.second; n != kNoNode; n = node({at.first, n}).parent)
            paths_.push_back(node({at.first, n}).token);
        std::reverse(paths_.begin() + static_cast<std::ptrdiff_t>(begins.back()), paths_.end());
    }
    begins.push_back(paths_.size());
    std::vector<PathRow> rows;
    for (std::size_t i = 0; i < wave.size(); ++i)
        rows.push_back({wave[i].first, std::span(paths_).subspan(begins[i], begins[i + 1] - begins[i])});
    const std::size_t stride = padded_row(columns);
    scores_.resize(wave.size() * stride);
    score(rows, scores_.data());
    usable_.assign(wave.size(), 0);
    for_each_row(team_, wave.size(), [&](std::size_t i) {
        usable_[i] = probabilities(scores_.data() + i * stride, static_cast<std::int64_t>(columns),
                                   static_cast<std::int64_t>(stride));
    });
    for (std::size_t i = 0; i < wave.size(); ++i)
        if (usable_[i] != 0) expand(wave[i], scores_.data() + i * stride);
}

/// Moves the most probable open nodes that can still have a child in the tree to the wave.
OUTRIDER_INLINE void PathSearch::take_wave(Growth& growth, std::size_t sequence, std::vector<Place>& wave) {
    const auto psi = [&](NodeIndex n) { return growth.nodes[static_cast<std::size_t>(n)].psi; };
    std::erase_if(growth.open, [&, bar = growth.threshold()](NodeIndex n) { return !(psi(n) > bar); });
    std::stable_sort(growth.open.begin(), growth.open.end(), [&](NodeIndex a, NodeIndex b) { return psi(a) > psi(b); });
    const std::size_t count = std::min(kWave, growth.open.size());
    for (std::size_t i = 0; i < count; ++i) wave.emplace_back(sequence, growth.open[i]);
    growth.open.erase(growth.open.begin(), growth.open.begin() + static_cast<std::ptrdiff_t>(count));
}

OUTRIDER_INLINE void PathSearch::add_children(Growth& growth, NodeIndex parent, const float* q,
                                              std::span<const TokenId> vocabulary, std::int64_t heads) {
    const Node above = growth.nodes[static_cast<std::size_t>(parent)];
    const auto least = [&] {
        return std::max(static_cast<float>(growth.threshold() / above.psi), std::numeric_limits<float>::min());
    };
    const auto padded = static_cast<std::int64_t>(padded_row(vocabulary.size()));
    float bar = least();
    for (std::int64_t block = find_block(q, 0, padded, bar); block < padded;
         block = find_block(q, block + 16, padded, bar))
        for (std::int64_t c = block; c < block + 16; ++c) {
            if (!(q[c] >= bar)) continue;
            const double psi = above.psi * std::min(static_cast<double>(q[c]), 1.0);
            if (!(psi > growth.threshold())) continue;
            growth.best.insert(std::upper_bound(growth.best.begin(), growth.best.end(), psi, std::greater<>{}), psi);
            if (growth.best.size() > growth.limit) growth.best.pop_back();
            if (above.depth + 1 < heads) growth.open.push_back(static_cast<NodeIndex>(growth.nodes.size()));
            growth.nodes.push_back({psi, std::log(std::min(q[c], 1.0F)), vocabulary[static_cast<std::size_t>(c)],
                                    parent, above.depth + 1, 0});
            bar = least();
        }
}

OUTRIDER_INLINE std::vector<TokenTree> PathSearch::best_first(std::span<const TokenId> pending,
                                                              std::span<const TokenId> vocabulary, std::int64_t heads,
                                                              std::int64_t nodes, const LeastChances& least,
                                                              const Score& score) {
    start(pending);
    const std::size_t limit = nodes > 0 ? static_cast<std::size_t>(nodes) : 0;
    for (Growth& growth : growths_) growth.limit = limit, growth.least = least;
    for (std::vector<Place> wave; limit > 0;) {
        wave.clear();
        for (std::size_t i = 0; i < growths_.size(); ++i) take_wave(growths_[i], i, wave);
        if (wave.empty()) break;
        pass(wave, vocabulary.size(), score,
             [&](Place at, const float* q) { add_children(growths_[at.first], at.second, q, vocabulary, heads); });
    }
    return build(nodes);
}

OUTRIDER_INLINE std::vector<TokenTree> PathSearch::ranked(std::span<const TokenId> pending,
                                                          std::span<const TokenId> vocabulary,
                                                          const TreeTemplate& shape, std::int64_t nodes,
                                                          const Score& score, double least) {
    start(pending);
    std::vector<std::vector<std::size_t>> children(shape.size() + 1);  // choices below each node of the template
    for (std::size_t i = 0; i < shape.size(); ++i) children[static_cast<std::size_t>(shape.parent(i))].push_back(i);
    std::vector<Place> wave;
    for (std::size_t i = 0; i < growths_.size() && nodes > 0; ++i)
        if (!children[0].empty()) wave.emplace_back(i, 0);
    RankedTokens list;
    while (!wave.empty()) {
        std::vector<Place> next;
        pass(wave, vocabulary.size(), score, [&](Place at, const float* q) {
            Growth& growth = growths_[at.first];
            const Node above = growth.nodes[static_cast<std::size_t>(at.second)];
            const auto& below = children[static_cast<std::size_t>(above.choice)];
            int ranks = 0;
            for (const std::size_t i : below) ranks = std::max(ranks, shape.choices()[i].back() + 1);
            rank_row(q, vocabulary, static_cast<std::size_t>(ranks), list);
            for (const std::size_t i : below) {
                const auto rank = static_cast<std::size_t>(shape.choices()[i].back());
                if (rank >= list.tokens.size()) continue;
                const double psi = above.psi * std::exp(static_cast<double>(list.log_q[rank]));
                if (least > 0 && !(psi > least)) continue;
                if (!children[i + 1].empty()) next.emplace_back(at.first, static_cast<NodeIndex>(growth.nodes.size()));
                growth.nodes.push_back({psi, list.log_q[rank], list.tokens[rank], at.second, above.depth + 1,
                                        static_cast<std::int32_t>(i) + 1});
            }
        });
        wave = std::move(next);
    }
    return build(nodes);
}

/// The most probable nodes found.
OUTRIDER_INLINE std::vector<TokenTree> PathSearch::build(std::int64_t nodes) const {
    std::vector<TokenTree> trees;
    for (const Growth& growth : growths_) {
        const std::vector<Node>& found = growth.nodes;
        trees.push_back(keep_best(
            found.front().token, found.size(), nodes, [&](std::size_t i) { return found[i].psi; },
            [&](std::size_t i) { return DraftNode{found[i].parent, found[i].token, found[i].log_q}; }));
    }
    return trees;
}

}  // namespace outrider
