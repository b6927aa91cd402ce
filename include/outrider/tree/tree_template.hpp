// Static tree shapes: ranked choices in the sense of Medusa (Cai et al. 2024). A choice (r1, ..., rd) names the node
// reached by rank r1 of the first head's (or frame's) list, then rank r2 of the second's, and so on.
#pragma once

#include <fmt/ranges.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <outrider/core/error.hpp>
#include <outrider/core/types.hpp>

namespace outrider {

/// A validated set of choices: prefix-closed, without doubles, sorted by (length, ranks). Immutable.
class TreeTemplate {
public:
    using Choice = std::vector<int>;

    /// Throws Error unless every prefix of a choice is a choice, each rank is in [0, max_rank) and no choice is longer
    /// than max_depth.
    TreeTemplate(std::vector<Choice> choices, int max_rank, int max_depth) : choices_(std::move(choices)) {
        std::sort(choices_.begin(), choices_.end(), shorter_first);
        for (std::size_t i = 0; i < choices_.size(); ++i) {
            const Choice& choice = choices_[i];
            require(!choice.empty() && static_cast<int>(choice.size()) <= max_depth,
                    "TreeTemplate: choice {} has depth {}, expected 1 to {}", i, choice.size(), max_depth);
            for (const int rank : choice)
                require(rank >= 0 && rank < max_rank, "TreeTemplate: rank {} is outside [0, {})", rank, max_rank);
            require(i == 0 || choices_[i - 1] != choice, "TreeTemplate: choice {} stands twice", i);
            parent_.push_back(choice.size() == 1 ? 0 : parent_of(choice));
        }
    }

    /// Choices in breadth-first order; choice i is node i + 1 of the template.
    [[nodiscard]] const std::vector<Choice>& choices() const noexcept { return choices_; }
    /// Parent of choice i as a node number; 0 is the root.
    [[nodiscard]] NodeIndex parent(std::size_t i) const { return parent_[i]; }
    [[nodiscard]] std::size_t size() const noexcept { return choices_.size(); }

private:
    static bool shorter_first(const Choice& a, const Choice& b) {
        return a.size() != b.size() ? a.size() < b.size() : a < b;
    }

    [[nodiscard]] NodeIndex parent_of(Choice choice) const {
        const Choice whole = choice;
        choice.pop_back();
        const auto it = std::lower_bound(choices_.begin(), choices_.end(), choice, shorter_first);
        require(it != choices_.end() && *it == choice,
                "TreeTemplate: choice ({}) has no parent in the set; list every prefix", fmt::join(whole, ","));
        return static_cast<NodeIndex>(it - choices_.begin()) + 1;
    }

    std::vector<Choice> choices_;
    std::vector<NodeIndex> parent_;
};

/// The 63-node shape that Medusa's release calls mc_sim_7b_63 (10 ranks, 4 levels), also used by the CTC paper.
[[nodiscard]] inline const TreeTemplate& medusa63() {
    static const TreeTemplate shape(
        {{0}, {0, 0}, {1}, {0, 1}, {2}, {0, 0, 0}, {1, 0}, {0, 2}, {3}, {0, 3}, {4}, {0, 4}, {2, 0}, {0, 5}, {0, 0, 1},
         {5}, {0, 6}, {6}, {0, 7}, {0, 1, 0}, {1, 1}, {7}, {0, 8}, {0, 0, 2}, {3, 0}, {0, 9}, {8}, {9}, {1, 0, 0},
         {0, 2, 0}, {1, 2}, {0, 0, 3}, {4, 0}, {2, 1}, {0, 0, 4}, {0, 0, 5}, {0, 0, 0, 0}, {0, 1, 1}, {0, 0, 6},
         {0, 3, 0}, {5, 0}, {1, 3}, {0, 0, 7}, {0, 0, 8}, {0, 0, 9}, {6, 0}, {0, 4, 0}, {1, 4}, {7, 0}, {0, 1, 2},
         {2, 0, 0}, {3, 1}, {2, 2}, {8, 0}, {0, 5, 0}, {1, 5}, {1, 0, 1}, {0, 2, 1}, {9, 0}, {0, 6, 0}, {0, 0, 0, 1},
         {1, 6}, {0, 7, 0}},
        10, 4);
    return shape;
}

}  // namespace outrider
