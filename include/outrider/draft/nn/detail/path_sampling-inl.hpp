// Bodies of path_sampling.hpp.
#pragma once

#include <outrider/draft/nn/detail/path_sampling.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include <outrider/accept/rules/detail/listed_law.hpp>
#include <outrider/core/detail/rng.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

/// One sequence's chains. Node 0 is the root; chains with the same tokens stand at the same node.
struct PathSampler::Growing {
    struct Node {
        TokenId token = kNoToken;
        NodeIndex parent = kNoNode;
        float log_q = 0.0F;
        std::vector<TokenId> path;  ///< from the pending token down to this one
    };
    std::vector<Node> nodes;
    std::vector<DraftSamples::Chain> chains;
    std::vector<NodeIndex> ends;     ///< where each chain stands; kNoNode: it has ended
    std::shared_ptr<ListedLaw> law;  ///< null: nobody reads it

    [[nodiscard]] NodeIndex child(NodeIndex parent, const TokenShare& share) {
        for (auto i = static_cast<std::size_t>(parent) + 1; i < nodes.size(); ++i)
            if (nodes[i].parent == parent && nodes[i].token == share.token) return static_cast<NodeIndex>(i);
        std::vector<TokenId> path = nodes[static_cast<std::size_t>(parent)].path;
        path.push_back(share.token);
        nodes.push_back({share.token, parent, static_cast<float>(std::log(share.q)), std::move(path)});
        return static_cast<NodeIndex>(nodes.size() - 1);
    }

    /// Every chain that stands at `node` draws its next token; without a usable row it has ended for certain.
    void step(NodeIndex node, std::span<const TokenShare> shares, const RandomKey& key, std::int64_t heads) {
        const std::vector<TokenId> path = nodes[static_cast<std::size_t>(node)].path;
        if (law) law->add({path.begin() + 1, path.end()}, {shares.begin(), shares.end()});
        for (std::size_t i = 0; i < chains.size(); ++i) {
            if (ends[i] != node) continue;
            if (shares.empty()) {
                chains[i].cut = false, ends[i] = kNoNode;
                continue;
            }
            const auto drawn = i * static_cast<std::uint64_t>(heads) + (path.size() - 1);
            const TokenShare& share = shares[draw_share(shares, key.uniform(drawn))];
            ends[i] = child(node, share);
            chains[i].tokens.push_back(share.token);
        }
    }

    [[nodiscard]] SequenceTree finish(SequenceId sequence) const {
        TokenTree::Builder tree(nodes.front().token, nodes.size() - 1);
        for (std::size_t i = 1; i < nodes.size(); ++i) (void)tree.add(nodes[i].parent, nodes[i].token, nodes[i].log_q);
        SequenceTree result{sequence, std::move(tree).build()};
        if (law && result.tree.drafted() > 0)
            result.samples = std::make_shared<const DraftSamples>(DraftSamples::from_chains(law, chains));
        return result;
    }
};

OUTRIDER_INLINE std::vector<SequenceTree> PathSampler::draw(std::span<const Start> starts,
                                                            std::span<const TokenId> vocabulary, std::int64_t heads,
                                                            const DraftBudget& budget, const HeadDraftOptions& options,
                                                            const PathSearch::Score& score) {
    const std::int64_t most = budget.chains ? 1 : std::max<std::int64_t>(budget.nodes, 1);
    const std::int64_t chains = std::clamp<std::int64_t>(options.chains, 1, most);
    const std::int64_t depth = std::min(heads, budget.nodes / chains);
    std::vector<Growing> growing;
    for (const Start& start : starts) {
        const auto count = static_cast<std::size_t>(chains);
        growing.push_back({{{start.pending, kNoNode, 0.0F, {start.pending}}},
                           std::vector<DraftSamples::Chain>(count, {{}, true}),
                           std::vector<NodeIndex>(count, 0),
                           budget.draws ? std::make_shared<ListedLaw>() : nullptr});
    }
    for (std::int64_t d = 0; d < depth; ++d) level(starts, growing, vocabulary, heads, options, score);
    std::vector<SequenceTree> trees;
    for (std::size_t i = 0; i < starts.size(); ++i) trees.push_back(growing[i].finish(starts[i].sequence));
    return trees;
}

/// One more token for every chain that has not ended: one pass of a head.
OUTRIDER_INLINE void PathSampler::level(std::span<const Start> starts, std::vector<Growing>& growing,
                                        std::span<const TokenId> vocabulary, std::int64_t heads,
                                        const HeadDraftOptions& options, const PathSearch::Score& score) {
    std::vector<std::pair<std::size_t, NodeIndex>> places;
    std::vector<PathRow> rows;
    for (std::size_t s = 0; s < growing.size(); ++s) {
        std::vector<NodeIndex> ends = growing[s].ends;
        std::sort(ends.begin(), ends.end());
        ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
        for (const NodeIndex node : ends) {
            if (node == kNoNode) continue;
            places.emplace_back(s, node);
            rows.push_back({s, growing[s].nodes[static_cast<std::size_t>(node)].path});
        }
    }
    if (rows.empty()) return;
    const std::size_t stride = padded_row(vocabulary.size());
    scores_.resize(rows.size() * stride);
    score(rows, scores_.data());
    for (std::size_t r = 0; r < places.size(); ++r) {
        const auto& [s, node] = places[r];
        const RandomKey key(options.seed, static_cast<std::uint64_t>(starts[s].sequence), starts[s].committed,
                            static_cast<std::uint64_t>(RandomPurpose::draft));
        growing[s].step(node, shares_of(scores_.data() + r * stride, vocabulary, options.top_k), key, heads);
    }
}

/// q of the likeliest tokens, renormalised; spoils the row. Empty where it says nothing.
OUTRIDER_INLINE std::vector<TokenShare> PathSampler::shares_of(float* row, std::span<const TokenId> vocabulary,
                                                               std::int64_t top_k) {
    std::vector<TokenShare> shares;
    if (!probabilities(row, std::ssize(vocabulary), static_cast<std::int64_t>(padded_row(vocabulary.size()))))
        return shares;
    rank_row(row, vocabulary, static_cast<std::size_t>(top_k), ranked_);
    double sum = 0.0;
    for (std::size_t i = 0; i < ranked_.tokens.size(); ++i) {
        shares.push_back({ranked_.tokens[i], std::exp(static_cast<double>(ranked_.log_q[i]))});
        sum += shares.back().q;
    }
    for (TokenShare& share : shares) share.q /= sum;
    return shares;
}

}  // namespace outrider
