// How many of a round's drafted nodes to verify.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <outrider/budget/detail/exploration.hpp>
#include <outrider/budget/detail/pass_cost.hpp>
#include <outrider/budget/detail/scored_nodes.hpp>

namespace outrider::budget {

/// Of all sequences' nodes, likeliest first, the first n with the largest (expected tokens) - R * t(rows): R is the
/// present rate in tokens a second, t the cost of a pass. That is the rule that maximises the long-run rate (Dinkelbach
/// 1967). Now and then another n, for what passes of that size really take.
class NodeChoice {
public:
    /// How many of the nodes. `gain`: the present rate over that of plain rounds.
    [[nodiscard]] std::size_t operator()(std::span<const Candidate> nodes, const PassCost& cost, std::int64_t sequences,
                                         double gain) {
        const double plain = cost(sequences), plain_rate = double(sequences) / plain,
                     rate = std::max(gain, 1.0) * plain_rate;
        // What passes take that are far larger than all before is a guess where nothing was measured: go there in
        // steps.
        const std::int64_t known = cost.measured() ? 1 << 20 : 2 * std::max(cost.largest_seen(), sequences) + 1;
        const double margin = kMargin * double(sequences);
        value_ = hope_ = 0;
        std::vector<double> worth(nodes.size() + 1, 0.0);  // tokens gained by the first n
        std::size_t best = 0;
        double chances = 0, stated = 0;
        for (std::size_t n = 1; n <= nodes.size(); ++n) {
            const std::int64_t rows = sequences + static_cast<std::int64_t>(n);
            const double more = cost(rows) - plain;
            chances += nodes[n - 1].chance, stated += std::max(nodes[n - 1].chance, nodes[n - 1].stated);
            worth[n] = chances - rate * more - margin;
            if (worth[n] > worth[best] && rows <= known) best = n;
            value_ = std::max(value_, chances - plain_rate * more - margin);
            hope_ = std::max(hope_, stated - plain_rate * more - margin);
        }
        return look(best, worth, cost, sequences, rate);
    }

    /// A round went by, with a choice or without.
    void pass() { looking_.earn(Exploration::kShare); }

    /// Tokens that verifying was expected to gain over a plain pass at the best size, by the corrected chances and by
    /// what the drafter states.
    [[nodiscard]] double value() const noexcept { return value_; }
    [[nodiscard]] double hope() const noexcept { return hope_; }

private:
    static constexpr double kMargin = 0.01;  ///< tokens of each sequence that verifying must promise

    /// In turns the next larger and the next smaller size, once what that seems to lose has been saved up.
    std::size_t look(std::size_t best, const std::vector<double>& worth, const PassCost& cost, std::int64_t sequences,
                     double rate) {
        const double plain = cost(sequences);
        const auto rows = sequences + static_cast<std::int64_t>(best);
        const bool up = best == 0 || looks_ % 2 == 0;
        const std::int64_t other =
            std::max<std::int64_t>((up ? Curve::above(rows) : Curve::below(rows)) - sequences, 1);
        const auto n = static_cast<std::size_t>(other);
        if (n == best || n >= worth.size()) return ++looks_, best;
        const double price = std::max(0.0, worth[best] - worth[n]) / (rate * plain) + 8 * Exploration::kShare;
        if (std::min(price, kMostSaved) > looking_.balance()) return best;
        looking_.pay(price, kMostOwed), ++looks_;
        return n;
    }

    double value_ = 0, hope_ = 0;
    static constexpr double kMostSaved = 2, kMostOwed = 4;  ///< plain rounds

    Account looking_{0, kMostSaved};
    std::int64_t looks_ = 0;
};

/// Whether up to `most` nodes for each sequence, and all of them right, would gain anything. `draft`: what a draft for
/// one sequence takes, in seconds.
[[nodiscard]] inline bool could_gain(const PassCost& cost, std::int64_t sequences, std::int64_t most, double draft) {
    constexpr double kLeastGain = 0.05;
    const double plain = cost(sequences);
    if (plain <= 0) return true;
    for (const std::int64_t drafting : {std::max<std::int64_t>(sequences / 8, 1), sequences}) {
        const double least = (1 + kLeastGain * double(drafting) / double(sequences)) * double(sequences) / plain;
        std::int64_t rows = Curve::above(sequences);
        for (std::int64_t last = sequences; rows != last && rows <= sequences + most * drafting;
             last = rows, rows = Curve::above(rows))
            if (double(rows) / (cost(rows) + draft * double(drafting)) > least) return true;
    }
    return false;
}

}  // namespace outrider::budget
