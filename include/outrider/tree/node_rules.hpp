// Acceptance rules that decide node by node: each emits one token whose law is exactly the target's, and goes down
// where the tree has it. Pure templates, in double; p, q and chance come from the caller.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <outrider/core/types.hpp>
#include <outrider/tree/accept_walk.hpp>
#include <outrider/tree/dice.hpp>
#include <outrider/tree/draft_samples.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// The target's law after a node: [V] probabilities that sum to 1, valid until the next call.
template <typename T>
concept TargetRows = requires(T&& target, NodeIndex node) {
    { target(node) } -> std::convertible_to<std::span<const double>>;
};

/// p and q of one node, as a rule changes them.
struct NodeLaws {
    std::vector<double> p;  ///< [V] what is left of the target's law, normalised
    std::vector<double> q;  ///< [V] the law of the next draw
    double end = 0;         ///< q(end)

    void load(std::span<const double> target) { p.assign(target.begin(), target.end()); }

    /// Takes q at `path` from the law. Call after load.
    void load(const DraftLaw& law, std::span<const TokenId> path) {
        q.assign(p.size(), 0.0);
        law.conditional(path, q);
        double sum = 0;
        for (const double x : q) sum += x;
        end = std::max(0.0, 1.0 - sum);
    }

    [[nodiscard]] double p_of(TokenId token) const {
        return token == kEndOfDraft ? 0.0 : p[static_cast<std::size_t>(token)];
    }
    [[nodiscard]] double q_of(TokenId token) const {
        return token == kEndOfDraft ? end : q[static_cast<std::size_t>(token)];
    }

    /// r p(x) / q(x) up to 1: the chance that a draw is accepted; 0 where p(x) is 0, and so for the end.
    [[nodiscard]] double chance(TokenId token, double r = 1.0) const {
        const double wanted = r * p_of(token);
        return wanted > 0 ? std::min(1.0, wanted / q_of(token)) : 0.0;
    }

    /// sum (r p - q)+.
    [[nodiscard]] double excess(double r = 1.0) const {
        double sum = 0;
        for (std::size_t i = 0; i < p.size(); ++i) sum += std::max(r * p[i] - q[i], 0.0);
        return sum;
    }

    /// p = norm((r p - q)+): what a rejection leaves. Where nothing is left (rounding; exactly then no draw is ever
    /// rejected) p stays. Returns the sum before normalising.
    double reject(double r = 1.0) {
        const double sum = excess(r);
        if (sum > 0)
            for (std::size_t i = 0; i < p.size(); ++i) p[i] = std::max(r * p[i] - q[i], 0.0) / sum;
        return sum;
    }

    /// q without a symbol, normalised: the law of the next draw without replacement.
    void remove(TokenId token) {
        (token == kEndOfDraft ? end : q[static_cast<std::size_t>(token)]) = 0.0;
        double sum = end;
        for (const double x : q) sum += x;
        if (!(sum > 0)) return;
        for (double& x : q) x /= sum;
        end /= sum;
    }
};

/// What a node rule decides: the token, and the draws that hold below it.
struct Emission {
    TokenId token = kNoToken;
    std::int32_t point = kNoPoint;
};

/// Walks down from (`node`, `point`), adding to `result`. `rule(draws, laws, dice)` is asked where there are draws;
/// elsewhere the token is drawn from p, and is a child or not (sample and match). `path`: the tokens down to `node`.
template <TargetRows Target, Dice D, typename Rule>
void node_walk(const TokenTree& tree, const DraftSamples* samples, Target&& target, D& dice, Rule&& rule,
               NodeIndex node, std::int32_t point, std::vector<TokenId> path, Acceptance& result) {
    NodeLaws laws;
    for (;;) {
        laws.load(target(node));
        const auto draws = samples != nullptr ? samples->draws(point) : std::span<const DraftSamples::Draw>{};
        Emission chosen;
        if (draws.empty()) {
            chosen.token = static_cast<TokenId>(dice.pick(laws.p));
        } else {
            laws.load(samples->law(), path);
            chosen = rule(draws, laws, dice);
        }
        result.pending = chosen.token;
        node = tree.child(node, chosen.token);
        if (node == kNoNode) return;
        result.path.push_back(node);
        path.push_back(chosen.token);
        point = chosen.point;
    }
}

/// Recursive rejection. Each draw x in turn is accepted with min(1, p(x) / q(x)), the end of a draft never; a rejection
/// leaves p = norm((p - q)+), and without replacement q without x. If none is accepted, x ~ p.
/// One chain: rule V2 of sampled drafts that may end (Leviathan et al. 2022, Chen et al. 2023, with q sub-normalised).
/// Independent draws: multi-step speculative sampling (SpecInfer, Miao et al. 2023). Without replacement: RRSw (EAGLE,
/// Li et al. 2024; Sequoia, Chen et al. 2024).
struct RejectionRule {
    bool replaced = true;

    template <Dice D>
    [[nodiscard]] Emission operator()(std::span<const DraftSamples::Draw> draws, NodeLaws& laws, D& dice) const {
        for (const auto& draw : draws) {
            if (dice.accept(laws.chance(draw.token))) return {draw.token, draw.point};
            laws.reject();
            if (!replaced) laws.remove(draw.token);
        }
        return {static_cast<TokenId>(dice.pick(laws.p)), kNoPoint};
    }
};

/// k-SEQ (SpecTr, Sun et al. 2023) for k independent draws: each in turn is accepted with min(1, p(x) / (rho q(x))),
/// so that one is with probability P = 1 - (1 - beta)^k, beta = sum min(q, p / rho); else
/// x ~ p - min(q, p / rho) P / beta.
/// Exact wherever rho beta >= P; the least such rho accepts most.
struct KSeqRule {
    static double beta(const NodeLaws& laws, double rho) {
        double sum = 0;
        for (std::size_t i = 0; i < laws.p.size(); ++i) sum += std::min(laws.q[i], laws.p[i] / rho);
        return sum;
    }

    static double chance_of_any(double beta, std::size_t k) {
        double none = 1;
        for (std::size_t i = 0; i < k; ++i) none *= 1 - beta;
        return 1 - none;
    }

    /// The least rho in [1, k] with rho beta >= P, by bisection: rho beta rises with rho and P falls. The end on the
    /// exact side is returned.
    [[nodiscard]] static double best_rho(const NodeLaws& laws, std::size_t k) {
        const auto exact = [&](double rho) {
            const double b = beta(laws, rho);
            return rho * b >= chance_of_any(b, k);
        };
        double low = 1, high = static_cast<double>(k);
        if (exact(low)) return low;
        for (int step = 0; step < 52; ++step) {
            const double middle = (low + high) / 2;
            (exact(middle) ? high : low) = middle;
        }
        return high;
    }

    template <Dice D>
    [[nodiscard]] Emission operator()(std::span<const DraftSamples::Draw> draws, NodeLaws& laws, D& dice) const {
        const double rho = best_rho(laws, draws.size());
        for (const auto& draw : draws)
            if (dice.accept(laws.chance(draw.token, 1 / rho))) return {draw.token, draw.point};
        const double b = beta(laws, rho);
        const double share = b > 0 ? chance_of_any(b, draws.size()) / b : 0.0;
        std::vector<double> rest(laws.p.size());
        double sum = 0;
        for (std::size_t i = 0; i < rest.size(); ++i)
            sum += rest[i] = std::max(0.0, laws.p[i] - std::min(laws.q[i], laws.p[i] / rho) * share);
        return {static_cast<TokenId>(dice.pick(sum > 0 ? rest : laws.p)), kNoPoint};
    }
};

/// A tree under a node rule, from the root.
template <TargetRows Target, Dice D, typename Rule>
[[nodiscard]] Acceptance accept_by_nodes(const TokenTree& tree, const DraftSamples* samples, Target&& target, D& dice,
                                         Rule&& rule) {
    Acceptance result;
    node_walk(tree, samples, target, dice, rule, 0, samples != nullptr ? 0 : kNoPoint, {}, result);
    return result;
}

/// The unified rule: recursive rejection on the sampled draws, and every other node of the tree by sample and match. A
/// node that was not drawn must have been chosen without looking at the draws. Without draws: sample and match alone.
template <TargetRows Target, Dice D>
[[nodiscard]] Acceptance accept_unified(const TokenTree& tree, const DraftSamples* samples, Target&& target, D& dice) {
    const bool replaced = samples == nullptr || samples->kind() == DraftSamples::Kind::independent;
    return accept_by_nodes(tree, samples, target, dice, RejectionRule{replaced});
}

}  // namespace outrider
