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

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/accept/rules/node_rules.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// Index of the largest entry, the lowest among equals. A row that knows its own is asked.
template <LawRow Row>
[[nodiscard]] TokenId most_probable(const Row& p) {
    if constexpr (requires { p.best(); }) return p.best();
    std::size_t best = 0;
    for (std::size_t i = 1; i < p.size(); ++i)
        if (p[i] > p[best]) best = i;
    return static_cast<TokenId>(best);
}

/// How many tokens are more probable than this one; equal probabilities rank by id.
template <LawRow Row>
[[nodiscard]] std::size_t rank_of(const Row& p, TokenId token) {
    const auto x = static_cast<std::size_t>(token);
    if constexpr (requires { p.rank(x); }) return p.rank(x);
    const double share = p[x];
    std::size_t before = 0;
    for (std::size_t i = 0; i < p.size(); ++i) before += p[i] > share || (p[i] == share && i < x) ? 1 : 0;
    return before;
}

/// -sum p ln(p + 1e-5), Medusa's entropy.
template <LawRow Row>
[[nodiscard]] double entropy_of(const Row& p) {
    if constexpr (requires { p.entropy(); }) return p.entropy();
    double entropy = 0;
    for (std::size_t i = 0; i < p.size(); ++i) entropy -= p[i] * std::log(p[i] + 1e-5);
    return entropy;
}

/// `prepare(p)` takes the target's law after a node, then `accepts(p, x)` says whether a child x of it will do.
template <typename C, typename Row = std::vector<double>>
concept LossyCriterion = requires(C criterion, const Row& p, TokenId token) {
    criterion.prepare(p);
    { criterion.accepts(p, token) } -> std::same_as<bool>;
};

/// Typical acceptance (Medusa, Cai et al. 2024): p(x) > min(eps, delta exp(-H)), H = -sum p ln(p + 1e-5).
struct TypicalCriterion {
    double eps = 0.09;
    double delta = 0.3;

    void prepare(const LawRow auto& p) { threshold_ = std::min(eps, delta * std::exp(-entropy_of(p))); }
    [[nodiscard]] bool accepts(const LawRow auto& p, TokenId token) const {
        return p[static_cast<std::size_t>(token)] > threshold_;
    }

    double threshold_ = 0;
};

/// Top-beta acceptance (SpecDec, Xia et al. 2022): x is among the `beta` most probable tokens and its log-probability
/// lies at most `tau` below the largest. With tau infinite: the top-k criterion of blockwise decoding (Stern et al.
/// 2018). beta 1 is greedy match, the exact criterion of blockwise decoding. Equal probabilities rank by id.
struct TopBetaCriterion {
    std::size_t beta = 3;
    double tau = std::numeric_limits<double>::infinity();

    void prepare(const LawRow auto& p) { top_ = p[static_cast<std::size_t>(most_probable(p))]; }
    [[nodiscard]] bool accepts(const LawRow auto& p, TokenId token) const {
        const double share = p[static_cast<std::size_t>(token)];
        return share > 0 && std::log(top_) - std::log(share) <= tau && rank_of(p, token) < beta;
    }

    double top_ = 0;
};

/// Distance criterion of blockwise decoding (Stern et al. 2018), for vocabularies whose ids are quantities, such as
/// intensities: |x - argmax p| <= eps. eps 0 is greedy match.
struct DistanceCriterion {
    TokenId eps = 2;

    void prepare(const LawRow auto& p) { best_ = most_probable(p); }
    [[nodiscard]] bool accepts(const LawRow auto&, TokenId token) const { return std::abs(token - best_) <= eps; }

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
        const auto& p = target(static_cast<NodeIndex>(at));
        criterion.prepare(p);
        for (std::size_t i = at + 1; i < tree.size(); ++i) {
            if (tree.parents()[i] != static_cast<NodeIndex>(at)) continue;
            good[i] = tree.depths()[i] <= unasked || criterion.accepts(p, tree.tokens()[i]);
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
