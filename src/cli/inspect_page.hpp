// `inspect --html`: one self-contained page that steps through the rounds of a text.
#pragma once

#include <nlohmann/json.hpp>

#include <functional>
#include <span>
#include <string>

#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::cli {

/// One round as the page shows it: its tree with probabilities, what was accepted, what it emits, time by stage.
/// `piece` gives what stands for a token.
[[nodiscard]] nlohmann::ordered_json page_round(const TokenTree& tree, std::span<const NodeIndex> path,
                                                std::span<const TokenId> emitted, const StageSeconds& seconds,
                                                const std::function<std::string(TokenId)>& piece);

/// The page. `story`: {"model", "drafter", "prompt", "rounds": [...]}. Nothing of it is read as HTML or as a script,
/// and the page loads nothing.
[[nodiscard]] std::string inspect_page(const nlohmann::ordered_json& story);

}  // namespace outrider::cli
