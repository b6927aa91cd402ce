// A draft tree as text, accepted path marked.
#pragma once

#include <functional>
#include <span>
#include <string>

#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::cli {

/// One line a node, children under their parent in node order, `*` before the nodes of `path`, the drafter's
/// conditional probability behind each. `text` gives what stands for a token.
[[nodiscard]] std::string draw_tree(const TokenTree& tree, std::span<const NodeIndex> path,
                                    const std::function<std::string(TokenId)>& text);

}  // namespace outrider::cli
