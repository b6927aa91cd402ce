// Which drafters make which trees.
#pragma once

#include <string_view>

namespace outrider::cli {

/// Throws Error where none of the drafters makes the tree that --tree asks for: the option would be ignored.
/// `kinds`: DraftModel::kind of all drafters, with + between.
void check_tree(std::string_view tree, std::string_view kinds);

}  // namespace outrider::cli
