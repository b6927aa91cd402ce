// The static or measured tree shape that a drafter's options and config ask for.
#pragma once

#include <cstdint>
#include <optional>
#include <outrider/core/error.hpp>
#include <outrider/draft/nn/detail/head_options.hpp>
#include <outrider/tree/tree_shape.hpp>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace outrider {

class HeadShape {
public:
    HeadShape() = default;

    /// `columns`: of the draft vocabulary. Throws Error for choices that no head could follow, and for a measured tree
    /// without measurements.
    HeadShape(std::string_view drafter, const HeadDraftOptions& options,
              const std::vector<std::vector<double>>& accuracies, std::int64_t heads, std::int64_t columns)
        : accuracies_(accuracies) {
        if (options.tree == HeadTree::measured)
            require(
                !accuracies.empty() && !accuracies.front().empty(),
                "{}: its config holds no accuracies to build a tree from; choose another tree, or train it with this "
                "version",
                drafter);
        require(options.chains >= 1 && options.top_k >= 1,
                "{}: {} chains from the {} likeliest tokens, expected at least 1 of each", drafter, options.chains,
                options.top_k);
        if (options.tree != HeadTree::static_tree) return;
        std::vector<TreeTemplate::Choice> choices = options.choices;
        if (choices.empty())
            for (const TreeTemplate::Choice& choice : medusa63().choices())
                if (static_cast<std::int64_t>(choice.size()) <= heads) choices.push_back(choice);
        fixed_.emplace(std::move(choices), static_cast<int>(options.choices.empty() ? 10 : columns),
                       static_cast<int>(heads));
    }

    [[nodiscard]] const TreeTemplate& of(std::int64_t nodes) {
        if (fixed_) return *fixed_;
        const auto found = measured_.find(nodes);
        return found != measured_.end() ? found->second
                                        : measured_.emplace(nodes, measured_template(accuracies_, nodes)).first->second;
    }

private:
    std::optional<TreeTemplate> fixed_;
    std::vector<std::vector<double>> accuracies_;
    std::unordered_map<std::int64_t, TreeTemplate> measured_;
};

}  // namespace outrider
