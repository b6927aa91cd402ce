// What a drafter may spend in a round, and what passes of the target cost.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace outrider {

/// What a drafter may spend on each sequence of a round. The prices are for drafters that can do with less; without
/// them time does not matter, and the same history gives the same tree on every machine.
struct DraftBudget {
    std::int64_t nodes = 16;                   ///< nodes below the root; 0 asks for the root alone
    double second_price = 0;                   ///< tokens that a second of drafting has to bring; 0: no prices
    std::span<const double> tree_prices = {};  ///< [nodes + 1] tokens that n nodes have to bring, for the time that
                                               ///< verifying them takes; owned by who asks, for the call

    /// A path probability below which a node is not worth finding: half of what a node has to bring at least, on
    /// average over a tree of the size where that is least (half, since a drafter's word may be corrected upwards). 0
    /// without prices.
    [[nodiscard]] double least_chance() const {
        if (second_price <= 0 || tree_prices.size() < 2) return 0.0;
        double least = tree_prices[1];
        for (std::size_t n = 2; n < tree_prices.size(); ++n)
            least = std::min(least, tree_prices[n] / static_cast<double>(n));
        return std::max(0.0, 0.5 * least);
    }
};

/// What one pass costs: see Verifier::pass_times.
struct PassTime {
    std::int64_t rows = 0;
    double seconds = 0;
};

}  // namespace outrider
