// How large the trees of a round are: a fixed number of nodes, or as many as pay, and none where they do not.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/accept/rules/draft_samples.hpp>
#include <outrider/budget/detail/asking.hpp>
#include <outrider/budget/detail/node_choice.hpp>
#include <outrider/budget/detail/pass_cost.hpp>
#include <outrider/budget/detail/scored_nodes.hpp>
#include <outrider/core/detail/option_ranges.hpp>
#include <outrider/core/options.hpp>

namespace outrider::budget {

/// Which sequences of a round draft (indices, ascending; the drafter is not run when there are none), and how much.
struct DraftPlan {
    std::vector<std::size_t> drafting;
    DraftBudget budget;
    std::vector<std::size_t> late = {};  ///< those that would, but have more to catch up with than they may
};

/// `plan` before the drafter, `trim` after it, `saw` for each verified tree, `learn` at the end of the round.
///
/// kAutoNodes: of all sequences' nodes together as many are verified as pay (NodeChoice, PassCost), by the drafter's
/// probabilities, corrected by what came true (HitRates, Outcomes). The drafter is asked while that gains more than it
/// costs (Asking). Where not even a perfect drafter could gain, none is ever run.
class TreeBudget {
public:
    /// `nodes` for each sequence, or kAutoNodes: then up to `most`.
    explicit TreeBudget(std::int64_t nodes = kAutoNodes, std::int64_t most = 32) : nodes_(nodes), most_(most) {
        if (nodes != kAutoNodes) require_in(ranges::kNodes, nodes, "TreeBudget", "nodes (kAutoNodes apart)");
    }

    [[nodiscard]] bool automatic() const noexcept { return nodes_ == kAutoNodes; }

    /// What passes cost here (empty: unknown), before the first round. `rests`: the drafter leaves out by itself what
    /// does not pay at the prices it is given, part by part, and is asked every round.
    void measured(std::span<const PassTime> times, bool rests = false) {
        cost_ = PassCost(times), asking_ = Asking(rests);
    }

    /// `owed`: for each sequence, the tokens that the drafter has not seen yet; `most`: more than a draft waits for.
    [[nodiscard]] DraftPlan plan(std::span<const std::int64_t> owed,
                                 std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
        if (nodes_ == 0) return {};
        DraftPlan plan{{}, {.nodes = nodes_}};
        if (automatic()) {
            const auto sequences = static_cast<std::int64_t>(owed.size());
            const bool plain = plain_now(sequences);
            plan.drafting = asking_.ask(plain ? owed.first(0) : owed, cost_, most);
            if (!plan.drafting.empty()) plan.budget = prices(sequences, std::ssize(plan.drafting));
            if (plain || !asking_.open()) return plan;
        }
        for (std::size_t i = 0; i < owed.size(); ++i) {
            if (owed[i] > most)
                plan.late.push_back(i);
            else if (!automatic())
                plan.drafting.push_back(i);
        }
        return plan;
    }

    /// Trees of all sequences of the round; those that do not draft have their root alone. What is kept of a sampled
    /// tree would depend on its draws, and the text's law on what is kept: it is left whole, and the next rounds ask
    /// for less.
    [[nodiscard]] std::vector<SequenceTree> trim(std::vector<SequenceTree> trees) {
        if (!automatic()) return trees;
        outcomes_.drafted(trees);
        if (asking_.asked() == 0) return trees;
        const std::vector<Candidate> nodes = likeliest_first(trees, rates_);
        const std::size_t count = choice_(nodes, cost_, std::ssize(trees), asking_.gain());
        nodes_used_ = std::max(0.95 * nodes_used_, most_of_one_tree(std::span(nodes).first(count), trees.size()));
        const auto drawn = [](const SequenceTree& t) { return t.samples != nullptr && !t.samples->is_chosen(); };
        if (count == nodes.size() || std::any_of(trees.begin(), trees.end(), drawn)) return trees;
        return keep(std::move(trees), std::span(nodes).first(count));
    }

    /// A tree as it was verified, and what came of it.
    void saw(const SequenceTree& tree, const Acceptance& accepted) {
        if (!automatic()) return;
        for (const NodeIndex node : accepted.path) outcomes_.text(tree.sequence, tree.tree.token(node), rates_);
        outcomes_.text(tree.sequence, accepted.pending, rates_);
    }

    void learn(const RoundReport& report) {
        if (!automatic() || report.sequences == 0) return;
        cost_.learn(static_cast<std::int64_t>(report.sequences) + report.drafted, report.verify_seconds,
                    asking_.usual(report.draft_seconds));
        asking_.learn(report, choice_.value(), choice_.hope(), cost_);
        choice_.pass();
    }

    /// Estimated speed of drafting rounds over plain ones; 1 before anything is known.
    [[nodiscard]] double gain() const { return asking_.gain(); }
    /// Whether the next rounds draft.
    [[nodiscard]] bool open() const noexcept { return asking_.open(); }

private:
    static constexpr std::int64_t kUnknownRounds = 2;                  ///< plain, where nothing was measured beforehand
    static constexpr std::int64_t kFirstPlain = 16, kPlainEvery = 64;  ///< drafting rounds between plain ones
    static constexpr std::int64_t kDoubtEvery = 512;                   ///< rounds

    /// A plain round now and then tells what plain decoding takes; soon after the start, and more seldom later. Where
    /// costs say that nothing could gain, a drafting one now and then tells whether they are right.
    bool plain_now(std::int64_t sequences) {
        ++rounds_;
        if (!cost_.measured() && rounds_ <= kUnknownRounds) return true;
        if (!could_gain(cost_, sequences, most_, asking_.steady(1))) return rounds_ % kDoubtEvery != 0;
        if (!asking_.open() || --next_plain_ > 0) return false;
        plain_every_ = std::min(2 * plain_every_, kPlainEvery), next_plain_ = plain_every_;
        return true;
    }

    /// How large a tree may be, and what time costs at the present rate. A second of drafting drags on the pass after
    /// it.
    [[nodiscard]] DraftBudget prices(std::int64_t sequences, std::int64_t drafting) {
        DraftBudget budget{.nodes = std::clamp<std::int64_t>(std::llround(2 * nodes_used_) + 2, 1, most_)};
        const double plain = cost_(sequences);
        if (!(plain > 0)) return budget;
        const double rate = std::max(gain(), 1.0) * double(sequences) / plain;
        budget.second_price = rate * (1 + cost_.drag());
        tree_prices_.clear();
        for (std::int64_t n = 0; n <= budget.nodes; ++n)
            tree_prices_.push_back(rate * (cost_(sequences + n * drafting) - plain) / double(drafting));
        budget.tree_prices = tree_prices_;
        return budget;
    }

    static double most_of_one_tree(std::span<const Candidate> kept, std::size_t trees) {
        std::vector<int> nodes(trees, 0);
        for (const Candidate& c : kept) ++nodes[c.tree];
        return *std::max_element(nodes.begin(), nodes.end());
    }

    std::int64_t nodes_, most_;
    PassCost cost_;
    HitRates rates_;
    Outcomes outcomes_;
    NodeChoice choice_;
    Asking asking_;
    double nodes_used_ = 2;  ///< of one tree, fading maximum
    std::int64_t rounds_ = 0, plain_every_ = kFirstPlain, next_plain_ = kFirstPlain;
    std::vector<double> tree_prices_;
};

}  // namespace outrider::budget
