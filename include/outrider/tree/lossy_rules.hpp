// Criteria that accept more than the target would have said: the text is no longer the target's. Deterministic.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <span>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/accept_walk.hpp>
#include <outrider/tree/node_rules.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// `prepare(p)` takes the target's law after a node, then `accepts(x)` says whether a child x of it will do.
template <typename C>
concept LossyCriterion = requires(C criterion, std::span<const double> p, TokenId token) {
    criterion.prepare(p);
    { criterion.accepts(token) } -> std::same_as<bool>;
};

/// Index of the largest entry, the lowest among equals.
[[nodiscard]] inline TokenId most_probable(std::span<const double> p) {
    return static_cast<TokenId>(std::max_element(p.begin(), p.end()) - p.begin());
}

/// Typical acceptance (Medusa, Cai et al. 2024): p(x) > min(eps, delta exp(-H)), H = -sum p ln(p + 1e-5).
struct TypicalCriterion {
    double eps = 0.09;
    double delta = 0.3;

    void prepare(std::span<const double> p) {
        p_ = p;
        double entropy = 0;
        for (const double x : p) entropy -= x * std::log(x + 1e-5);
        threshold_ = std::min(eps, delta * std::exp(-entropy));
    }
    [[nodiscard]] bool accepts(TokenId token) const { return p_[static_cast<std::size_t>(token)] > threshold_; }

    std::span<const double> p_ = {};
    double threshold_ = 0;
};

/// Top-beta acceptance (SpecDec, Xia et al. 2022): x is among the `beta` most probable tokens and its log-probability
/// lies at most `tau` below the largest. With tau infinite: the top-k criterion of blockwise decoding (Stern et al.
/// 2018). beta 1 is greedy match. Equal probabilities rank by id.
struct TopBetaCriterion {
    std::size_t beta = 3;
    double tau = std::numeric_limits<double>::infinity();

    void prepare(std::span<const double> p) {
        p_ = p;
        top_ = p[static_cast<std::size_t>(most_probable(p))];
    }
    [[nodiscard]] bool accepts(TokenId token) const {
        const auto x = static_cast<std::size_t>(token);
        if (!(p_[x] > 0) || std::log(top_) - std::log(p_[x]) > tau) return false;
        std::size_t before = 0;
        for (std::size_t i = 0; i < p_.size(); ++i) before += p_[i] > p_[x] || (p_[i] == p_[x] && i < x) ? 1 : 0;
        return before < beta;
    }

    std::span<const double> p_ = {};
    double top_ = 0;
};

/// Distance criterion of blockwise decoding (Stern et al. 2018), for vocabularies whose ids are quantities, such as
/// intensities: |x - argmax p| <= eps. eps 0 is greedy match.
struct DistanceCriterion {
    TokenId eps = 2;

    void prepare(std::span<const double> p) { best_ = most_probable(p); }
    [[nodiscard]] bool accepts(TokenId token) const { return std::abs(token - best_) <= eps; }

    TokenId best_ = 0;
};

static_assert(LossyCriterion<TypicalCriterion> && LossyCriterion<TopBetaCriterion> &&
              LossyCriterion<DistanceCriterion>);

/// The longest path all of whose nodes are acceptable, among equally long ones that of the largest sum of ln p (the
/// first node on a tie), and the target's most probable token after it. Nodes down to depth `unasked` are acceptable
/// whatever they are: with it, blockwise decoding's minimum block of unasked + 1 tokens.
template <TargetRows Target, LossyCriterion Criterion>
[[nodiscard]] Acceptance accept_longest(const TokenTree& tree, Target&& target, Criterion criterion,
                                        NodeIndex unasked = 0) {
    std::vector<double> score(tree.size(), -std::numeric_limits<double>::infinity());
    std::vector<bool> good(tree.size(), false), asked(tree.size(), false);
    for (std::size_t i = 1; i < tree.size(); ++i) asked[static_cast<std::size_t>(tree.parents()[i])] = true;
    good[0] = true;
    score[0] = 0;
    NodeIndex best = 0;
    for (std::size_t at = 0; at < tree.size(); ++at) {
        if (!good[at] || !asked[at]) continue;
        const std::span<const double> p = target(static_cast<NodeIndex>(at));
        criterion.prepare(p);
        for (std::size_t i = at + 1; i < tree.size(); ++i) {
            if (tree.parents()[i] != static_cast<NodeIndex>(at)) continue;
            good[i] = tree.depths()[i] <= unasked || criterion.accepts(tree.tokens()[i]);
            if (good[i]) score[i] = score[at] + std::log(p[static_cast<std::size_t>(tree.tokens()[i])]);
        }
    }
    for (std::size_t i = 1; i < tree.size(); ++i) {
        const auto node = static_cast<NodeIndex>(i);
        const NodeIndex depth = tree.depth(node), longest = tree.depth(best);
        if (good[i] && (depth > longest || (depth == longest && score[i] > score[static_cast<std::size_t>(best)])))
            best = node;
    }
    Acceptance result;
    result.pending = most_probable(target(best));
    for (NodeIndex node = best; node > 0; node = tree.parent(node)) result.path.push_back(node);
    std::reverse(result.path.begin(), result.path.end());
    return result;
}

}  // namespace outrider
