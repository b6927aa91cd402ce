// Acceptance rules that decide for whole paths, from the leaves up: block verification of a chain and traversal
// verification of a tree. Lossless, though a single node's acceptance is not the target's law.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/accept/rules/dice.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/accept/rules/node_rules.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

namespace detail {

/// A place on a sampled chain, with the names of accept_block.
struct BlockStep {
    NodeIndex node;
    std::int32_t point;
    double r, h;
};

/// The steps from the root to the chain's end, or to the first token whose node is not in the tree; `path`: their
/// tokens.
template <TargetRows Target, typename Laws>
[[nodiscard]] std::vector<BlockStep> block_steps(const TokenTree& tree, const DraftSamples& samples, Target&& target,
                                                 Laws& laws, std::vector<TokenId>& path) {
    std::vector<BlockStep> steps{{0, 0, 1.0, 1.0}};
    for (std::size_t i = 0;; ++i) {
        BlockStep& at = steps[i];
        const auto draws = samples.draws(at.point);
        at.h = at.r;
        if (at.node == kNoNode || draws.empty()) break;
        laws.load(target(at.node));
        laws.load(samples.law(), path);
        const double excess = laws.excess(at.r), rest = excess + 1 - at.r;
        at.h = rest > 0 ? excess / rest : 1.0;
        const TokenId token = draws[0].token;
        if (token == kEndOfDraft) break;
        path.push_back(token);
        steps.push_back({tree.child(at.node, token), draws[0].point, laws.chance(token, at.r), 1.0});
    }
    return steps;
}

}  // namespace detail

/// Block verification (Sun et al. 2024) of one sampled chain x_1 .. x_n, where "the draft ends" is a symbol with
/// p(end) = 0. With r_0 = 1, r_i = min(1, r_{i-1} p(x_i) / q(x_i)) and S_i = sum (r_i p - q)+ after x_i,
///     h_i = S_i / (S_i + 1 - r_i), and h = r at the chain's last token if the chain was cut there;
/// the longest i whose coin of chance h_i falls is kept, and the next token is ~ norm((r_i p - q)+), or ~ p where cut.
/// A last token whose node is not in the tree is emitted without another after it.
template <TargetRows Target, Dice D>
[[nodiscard]] Acceptance accept_block(const TokenTree& tree, const DraftSamples& samples, Target&& target, D& dice) {
    std::vector<TokenId> path;
    NodeLaws<HeldRow<Target&>> laws;
    const std::vector<detail::BlockStep> steps = detail::block_steps(tree, samples, target, laws, path);
    std::size_t kept = steps.size() - 1;
    while (kept > 0 && !dice.accept(steps[kept].h)) --kept;
    path.resize(kept);
    Acceptance result;
    for (std::size_t i = 1; i <= kept && steps[i].node != kNoNode; ++i) result.path.push_back(steps[i].node);
    const detail::BlockStep& at = steps[kept];
    if (at.node == kNoNode) {
        result.pending = path.back();
        return result;
    }
    laws.load(target(at.node));
    if (!samples.draws(at.point).empty()) {
        laws.load(samples.law(), path);
        laws.reject(at.r);
    }
    result.pending = laws.pick(dice);
    const NodeIndex next = tree.child(at.node, result.pending);
    if (next == kNoNode) return result;
    result.path.push_back(next);
    path.push_back(result.pending);
    node_walk(tree, nullptr, target, dice, RejectionRule{}, next, kNoPoint, std::move(path), result);
    return result;
}

/// Traversal verification (Weng et al. 2025): depth first, draws in order. A point is reached with r (1 at the root); a
/// draw x below it has r_x = min(1, r p(x) / q(x)), and its whole subtree is tried first. If that is rejected,
///     S = sum (r p - q)+,   p <- norm((r p - q)+),   r <- S / (S + 1 - r),   without replacement q <- q without x;
/// when no draw is left, the point itself is kept with chance r and the next token is ~ p. On one chain it is block
/// verification. For draws with and without replacement alike.
template <TargetRows Target, Dice D>
class TraversalRule {
public:
    TraversalRule(const TokenTree& tree, const DraftSamples& samples, Target& target, D& dice)
        : tree_(tree),
          samples_(samples),
          target_(target),
          dice_(dice),
          replaced_(samples.kind() == DraftSamples::Kind::independent) {}

    [[nodiscard]] Acceptance operator()() {
        visit(0, 0, 1.0);  // the root has r = 1 to the end
        return std::move(result_);
    }

private:
    /// Whether the path ends at `node` or below. result_.path holds the nodes down to `node`, path_ their tokens.
    bool visit(NodeIndex node, std::int32_t point, double r) {
        NodeLaws<HeldRow<Target&>> laws;
        laws.load(target_(node));
        const auto draws = samples_.draws(point);
        if (!draws.empty()) laws.load(samples_.law(), path_);
        for (const auto& draw : draws) {
            if (const double chance = laws.chance(draw.token, r); chance > 0 && below(node, draw, chance)) return true;
            const double excess = laws.reject(r), rest = excess + 1 - r;
            if (rest > 0) r = excess / rest;
            if (!replaced_) laws.remove(draw.token);
        }
        if (!dice_.accept(node == 0 ? 1.0 : r)) return false;
        result_.pending = laws.pick(dice_);
        if (const NodeIndex next = tree_.child(node, result_.pending); next != kNoNode) {
            result_.path.push_back(next);
            path_.push_back(result_.pending);
            node_walk(tree_, nullptr, target_, dice_, RejectionRule{}, next, kNoPoint, path_, result_);
        }
        return true;
    }

    bool below(NodeIndex node, const DraftSamples::Draw& draw, double chance) {
        const NodeIndex child = tree_.child(node, draw.token);
        if (child == kNoNode) {  // drawn, but not verified: it may be emitted, with nothing after it
            if (!dice_.accept(chance)) return false;
            result_.pending = draw.token;
            return true;
        }
        result_.path.push_back(child);
        path_.push_back(draw.token);
        if (visit(child, draw.point, chance)) return true;
        result_.path.pop_back();
        path_.pop_back();
        return false;
    }

    const TokenTree& tree_;
    const DraftSamples& samples_;
    Target& target_;
    D& dice_;
    bool replaced_;
    std::vector<TokenId> path_;
    Acceptance result_;
};

template <TargetRows Target, Dice D>
[[nodiscard]] Acceptance accept_traversal(const TokenTree& tree, const DraftSamples& samples, Target&& target,
                                          D& dice) {
    return TraversalRule<std::remove_reference_t<Target>, D>(tree, samples, target, dice)();
}

}  // namespace outrider
