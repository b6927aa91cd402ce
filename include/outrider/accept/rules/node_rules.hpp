// Acceptance rules that decide node by node: each emits one token whose law is exactly the target's, and goes down
// where the tree has it. Pure templates, in double; p, q and chance come from the caller.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/accept/rules/dice.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider {

/// A law over V tokens: p of one, asked for as it is needed.
template <typename R>
concept LawRow = requires(const R& row, std::size_t token) {
    { row.size() } -> std::convertible_to<std::size_t>;
    { row[token] } -> std::convertible_to<double>;
};

/// The target's law after a node, which sums to 1. A span is valid until the next call and is copied; any other row is
/// kept as it is, for as long as the rule runs.
template <typename T>
concept TargetRows = requires(T&& target, NodeIndex node) {
    { target(node) } -> LawRow;
};

template <typename Target>
using HeldRow =
    std::conditional_t<std::convertible_to<std::invoke_result_t<Target, NodeIndex>, std::span<const double>>,
                       std::vector<double>, std::remove_cvref_t<std::invoke_result_t<Target, NodeIndex>>>;

/// p and q of one node, as a rule changes them. Only tokens that q names are looked at one by one: the others keep
/// their proportions, whatever is rejected, so that a rule costs as much as q is long, and a pick one pass over the
/// row.
template <LawRow Row = std::vector<double>>
class NodeLaws {
public:
    void load(std::span<const double> target)
        requires std::same_as<Row, std::vector<double>>
    {
        row_.assign(target.begin(), target.end());
        reset();
    }
    void load(Row target)
        requires(!std::same_as<Row, std::vector<double>>)
    {
        row_ = std::move(target);
        reset();
    }

    /// Takes q at `path` from the law. Call after load.
    void load(const DraftLaw& law, std::span<const TokenId> path) {
        shares_.clear();
        law.list(path, row_.size(), shares_);
        double named = 0, sum = 0;
        for (const TokenShare& share : shares_) {
            const double p = row_[static_cast<std::size_t>(share.token)];
            named_.push_back({share.token, p, share.q});
            named += p, sum += share.q;
        }
        end_ = std::max(0.0, 1.0 - sum);
        others_ = std::max(0.0, 1.0 - named);
        if (others_ < kRounding || named_.size() == row_.size()) others_ = 0;
    }

    /// r p(x) / q(x) up to 1: the chance that a draw is accepted; 0 where p(x) is 0, and so for the end.
    [[nodiscard]] double chance(TokenId token, double r = 1.0) const {
        if (token == kEndOfDraft) return 0.0;
        const Named x = of(token);
        const double wanted = r * x.p;
        return wanted > 0 ? std::min(1.0, wanted / x.q) : 0.0;
    }

    /// sum over tokens of f(p, q), where f(p, 0) = p f(1, 0).
    template <typename F>
    [[nodiscard]] double sum(F&& f) const {
        double total = scale_ * others_ * f(1.0, 0.0);
        for (const Named& x : named_) total += f(x.p, x.q);
        return total;
    }

    /// p = norm(f(p, q)), where f >= 0 and f(p, 0) = p f(1, 0). Where nothing is left p stays. Returns the sum before
    /// normalising.
    template <typename F>
    double replace(F&& f) {
        const double total = sum(f);
        if (!(total > 0)) return total;
        scale_ *= f(1.0, 0.0) / total;
        for (Named& x : named_) x.p = f(x.p, x.q) / total;
        return total;
    }

    /// sum (r p - q)+.
    [[nodiscard]] double excess(double r = 1.0) const { return sum(Excess{r}); }

    /// p = norm((r p - q)+): what a rejection leaves. Where nothing is left (rounding; exactly then no draw is ever
    /// rejected) p stays. Returns the sum before normalising.
    double reject(double r = 1.0) { return replace(Excess{r}); }

    /// q without a symbol, normalised: the law of the next draw without replacement.
    void remove(TokenId token) {
        double sum = token == kEndOfDraft ? end_ = 0.0 : end_;
        for (Named& x : named_) sum += x.token == token ? x.q = 0.0 : x.q;
        if (!(sum > 0)) return;
        for (Named& x : named_) x.q /= sum;
        end_ /= sum;
    }

    /// A draw from p.
    template <Dice D>
    [[nodiscard]] TokenId pick(D& dice) {
        weights_.resize(row_.size());
        write_row();
        if (scale_ != 1.0)
            for (double& w : weights_) w *= scale_;
        for (const Named& x : named_) weights_[static_cast<std::size_t>(x.token)] = x.p;
        return static_cast<TokenId>(dice.pick(weights_));
    }

private:
    static constexpr double kRounding = 1e-13;  ///< less than this is no mass

    struct Named {
        TokenId token;
        double p, q;
    };
    struct Excess {
        double r;
        double operator()(double p, double q) const { return std::max(r * p - q, 0.0); }
    };

    void reset() {
        named_.clear();
        scale_ = 1, others_ = 1, end_ = 0;
    }

    [[nodiscard]] Named of(TokenId token) const {
        for (const Named& x : named_)
            if (x.token == token) return x;
        return {token, scale_ * row_[static_cast<std::size_t>(token)], 0.0};
    }

    void write_row() {
        if constexpr (requires { row_.write(std::span<double>(weights_)); })
            row_.write(std::span<double>(weights_));
        else
            for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] = row_[i];
    }

    Row row_{};                 ///< the target's law as it was
    double scale_ = 1;          ///< what it is multiplied by for tokens that q does not name
    double others_ = 1;         ///< their sum in row_
    double end_ = 0;            ///< q(end)
    std::vector<Named> named_;  ///< p and q now of those that it names
    std::vector<TokenShare> shares_;
    std::vector<double> weights_;
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
    NodeLaws<HeldRow<Target&>> laws;
    for (;;) {
        laws.load(target(node));
        const auto draws = samples != nullptr ? samples->draws(point) : std::span<const DraftSamples::Draw>{};
        Emission chosen;
        if (draws.empty()) {
            chosen.token = laws.pick(dice);
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

    template <typename Laws, Dice D>
    [[nodiscard]] Emission operator()(std::span<const DraftSamples::Draw> draws, Laws& laws, D& dice) const {
        for (const auto& draw : draws) {
            if (dice.accept(laws.chance(draw.token))) return {draw.token, draw.point};
            laws.reject();
            if (!replaced) laws.remove(draw.token);
        }
        return {laws.pick(dice), kNoPoint};
    }
};

/// k-SEQ (SpecTr, Sun et al. 2023) for k independent draws: each in turn is accepted with min(1, p(x) / (rho q(x))),
/// so that one is with probability P = 1 - (1 - beta)^k, beta = sum min(q, p / rho); else
/// x ~ p - min(q, p / rho) P / beta.
/// Exact wherever rho beta >= P; the least such rho accepts most.
struct KSeqRule {
    template <typename Laws>
    static double beta(const Laws& laws, double rho) {
        return laws.sum([rho](double p, double q) { return std::min(q, p / rho); });
    }

    static double chance_of_any(double beta, std::size_t k) {
        double none = 1;
        for (std::size_t i = 0; i < k; ++i) none *= 1 - beta;
        return 1 - none;
    }

    /// The least rho in [1, k] with rho beta >= P, by bisection: rho beta rises with rho and P falls. The end on the
    /// exact side is returned.
    template <typename Laws>
    [[nodiscard]] static double best_rho(const Laws& laws, std::size_t k) {
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

    template <typename Laws, Dice D>
    [[nodiscard]] Emission operator()(std::span<const DraftSamples::Draw> draws, Laws& laws, D& dice) const {
        const double rho = best_rho(laws, draws.size());
        for (const auto& draw : draws)
            if (dice.accept(laws.chance(draw.token, 1 / rho))) return {draw.token, draw.point};
        const double b = beta(laws, rho);
        const double share = b > 0 ? chance_of_any(b, draws.size()) / b : 0.0;
        laws.replace([&](double p, double q) { return std::max(0.0, p - std::min(q, p / rho) * share); });
        return {laws.pick(dice), kNoPoint};
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
