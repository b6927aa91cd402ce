#include "tree_choice.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <ranges>
#include <vector>

#include <outrider/core/error.hpp>

namespace outrider::cli {
namespace {

/// Empty: every kind, since the tree is what they make unasked.
std::vector<std::string_view> makers(std::string_view tree) {
    if (tree == "static") return {"ctc", "medusa", "hydra"};
    if (tree == "per-frame") return {"ctc"};
    if (tree == "measured") return {"medusa", "hydra"};
    if (tree == "sampled") return {"ctc", "medusa", "hydra", "lm"};
    return {};
}

}  // namespace

void check_tree(std::string_view tree, std::string_view kinds) {
    const std::vector<std::string_view> known = makers(tree);
    const auto makes = [&](auto&& kind) {
        return std::ranges::find(known, std::string_view(kind.begin(), kind.end())) != known.end();
    };
    require(known.empty() || std::ranges::any_of(kinds | std::views::split('+'), makes),
            "--tree {} is of drafters of kind {}; this one is of kind {}. Leave the option out, or name such a drafter",
            tree, fmt::format("{}", fmt::join(known, ", ")), kinds);
}

}  // namespace outrider::cli
