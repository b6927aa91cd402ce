// How likely a node has to be for a search to look for it, by how many likelier ones it has found.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include <outrider/core/options.hpp>

namespace outrider {

/// What the n-th likeliest node has to bring is what n nodes cost more than n - 1, averaged to the next size that can
/// be the best one (the lower convex hull of DraftBudget::tree_prices). Half of it, since a drafter's word may be
/// corrected upwards; and one node more is found at each price, so that a size above the best one can be tried.
class LeastChances {
public:
    /// The same for every node; 0: none is too unlikely.
    LeastChances(double least = 0) : by_rank_{least} {}  // NOLINT(google-explicit-constructor): a number is one

    /// 0 where the budget names no prices.
    explicit LeastChances(const DraftBudget& budget) : by_rank_{budget.least_chance()} {
        if (by_rank_.front() <= 0) return;
        const auto& prices = budget.tree_prices;
        for (std::size_t from = 0, corner = 0; from + 1 < prices.size(); from = corner) {
            double slope = 0;
            for (std::size_t n = from + 1; n < prices.size(); ++n) {
                const double to_here = (prices[n] - prices[from]) / double(n - from);
                if (n == from + 1 || to_here <= slope) slope = to_here, corner = n;
            }
            by_rank_.resize(corner + 1, 0.5 * slope);  // the first one stands twice
        }
    }

    /// What another path's probability has to exceed, where these were found (descending) and `limit` are looked for.
    /// Never falls while a search goes on.
    [[nodiscard]] double threshold(const std::vector<double>& found, std::size_t limit) const {
        std::size_t rank = 0;
        while (rank < found.size() && found[rank] >= of(rank)) ++rank;
        if (found.size() < limit) return of(rank);
        return std::max(of(std::min(rank, limit - 1)), found.back());
    }

private:
    [[nodiscard]] double of(std::size_t rank) const { return by_rank_[std::min(rank, by_rank_.size() - 1)]; }

    std::vector<double> by_rank_;
};

}  // namespace outrider
