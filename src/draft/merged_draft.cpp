#include <outrider/draft/merged_draft.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <outrider/core/error.hpp>

namespace outrider {

MergedDraft::MergedDraft(std::vector<std::unique_ptr<DraftModel>> drafters) : drafters_(std::move(drafters)) {
    require(!drafters_.empty() && drafters_.size() <= 16, "MergedDraft: {} drafters; expected 1 to 16",
            drafters_.size());
    for (const auto& drafter : drafters_) {
        require(drafter != nullptr, "MergedDraft: a drafter is null");
        if (!kind_.empty()) kind_ += '+';
        kind_ += drafter->kind();
    }
}

DraftDraws MergedDraft::draws() const {
    DraftDraws sum = DraftDraws::no_nodes;
    for (const auto& drafter : drafters_) {
        const DraftDraws one = drafter->draws();
        if (one == DraftDraws::unknown || one > DraftDraws::certain) return one;
        sum = std::max(sum, one);
    }
    return sum;
}

/// A node that was drawn may lose its place to likelier ones. Whether it does depends on the path to it and on other
/// branches, never on what was drawn at it or below, since descendants rank behind it: so the draws may be passed on.
void MergedDraft::keep_draws(const SequenceTree& tree, Draws& draws) {
    if (tree.samples == nullptr) return;
    auto& kept = draws[tree.sequence];
    if (kept == nullptr || (kept->is_chosen() && !tree.samples->is_chosen())) kept = tree.samples;
}

void MergedDraft::do_forget(SequenceId sequence) {
    proposed_.erase(sequence);
    for (const auto& drafter : drafters_) drafter->forget(sequence);
}

std::vector<SequenceTree> MergedDraft::do_propose(std::span<const SequenceFeedback> feedback, DraftBudget budget) {
    for (const SequenceFeedback& f : feedback) {
        Trie& trie = proposed_[f.sequence];
        learn(trie, f);
        trie.assign(1, Node{f.pending});
    }
    Draws draws;
    for (std::size_t d = 0; d < drafters_.size(); ++d) {
        const std::vector<SequenceTree> trees = drafters_[d]->propose(feedback, budget);
        for (const SequenceTree& t : trees) {
            join(proposed_[t.sequence], t.tree, static_cast<Agreement>(1U << d));
            keep_draws(t, draws);
        }
    }
    std::vector<SequenceTree> merged;
    merged.reserve(feedback.size());
    for (const SequenceFeedback& f : feedback) {
        Trie& trie = proposed_[f.sequence];
        weigh(trie);
        merged.push_back({f.sequence, best_nodes(trie, budget.nodes), std::move(draws[f.sequence])});
        SequenceTree& last = merged.back();
        if (last.samples != nullptr && last.samples->is_chosen())
            last.samples = std::make_shared<const DraftSamples>(DraftSamples::chosen(last.tree));
    }
    return merged;
}

/// Walks the last trie along what the target chose; every child on the way is an outcome, kept in the tree or not.
void MergedDraft::learn(const Trie& proposed, const SequenceFeedback& f) {
    if (proposed.empty() || f.tokens.empty() || proposed.front().token != f.tokens.front()) return;
    NodeIndex at = 0;
    for (std::size_t i = 1; i <= f.tokens.size() && at != kNoNode; ++i) {
        const TokenId actual = i < f.tokens.size() ? f.tokens[i] : f.pending;
        NodeIndex next = kNoNode;
        for (std::size_t n = static_cast<std::size_t>(at) + 1; n < proposed.size(); ++n) {
            const Node& node = proposed[n];
            if (node.parent != at) continue;
            const bool came_true = node.token == actual;
            calibrations_[node.by].learn(node.depth, 1.0 - node.miss, came_true);
            if (came_true) next = static_cast<NodeIndex>(n);
        }
        at = next;
    }
}

void MergedDraft::join(Trie& trie, const TokenTree& tree, Agreement who) {
    std::vector<NodeIndex> place(tree.size(), 0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        const NodeIndex parent = place[static_cast<std::size_t>(tree.parents()[i])];
        const TokenId token = tree.tokens()[i];
        auto n = static_cast<std::size_t>(parent) + 1;
        while (n < trie.size() && (trie[n].parent != parent || trie[n].token != token)) ++n;
        if (n == trie.size())
            trie.push_back(
                {.token = token, .parent = parent, .depth = trie[static_cast<std::size_t>(parent)].depth + 1});
        trie[n].by |= who;
        trie[n].miss *= 1.0 - std::clamp(std::exp(double(tree.log_q()[i])), 0.0, 0.9999);
        place[i] = static_cast<NodeIndex>(n);
    }
}

/// Calibrates every node, scales siblings that claim more than all, and multiplies along the paths.
void MergedDraft::weigh(Trie& trie) const {
    static const Calibration unknown;
    std::vector<double> claimed(trie.size(), 0.0);  // sum over the children
    for (std::size_t n = 1; n < trie.size(); ++n) {
        const auto it = calibrations_.find(trie[n].by);
        trie[n].given_parent = (it == calibrations_.end() ? unknown : it->second)(trie[n].depth, 1.0 - trie[n].miss);
        claimed[static_cast<std::size_t>(trie[n].parent)] += trie[n].given_parent;
    }
    for (std::size_t n = 1; n < trie.size(); ++n) {
        const auto parent = static_cast<std::size_t>(trie[n].parent);
        if (claimed[parent] > 0.995) trie[n].given_parent *= 0.995 / claimed[parent];
        trie[n].path = trie[parent].path + std::log(trie[n].given_parent);
    }
}

/// The nodes of largest path probability. Parents are at least as likely as their children and stand before them, so a
/// stable order is prefix-closed.
TokenTree MergedDraft::best_nodes(const Trie& trie, std::int64_t nodes) {
    std::vector<NodeIndex> order(trie.size() - 1);
    std::iota(order.begin(), order.end(), 1);
    std::stable_sort(order.begin(), order.end(), [&](NodeIndex a, NodeIndex b) {
        return trie[static_cast<std::size_t>(a)].path > trie[static_cast<std::size_t>(b)].path;
    });
    if (static_cast<std::int64_t>(order.size()) > nodes)
        order.resize(static_cast<std::size_t>(std::max<std::int64_t>(nodes, 0)));
    TokenTree::Builder tree(trie.front().token, order.size());
    std::vector<NodeIndex> place(trie.size(), 0);
    for (const NodeIndex n : order) {
        const Node& node = trie[static_cast<std::size_t>(n)];
        place[static_cast<std::size_t>(n)] = tree.add(place[static_cast<std::size_t>(node.parent)], node.token,
                                                      static_cast<float>(std::log(node.given_parent)));
    }
    return std::move(tree).build();
}

}  // namespace outrider
