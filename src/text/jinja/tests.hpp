// The tests of Jinja (`x is defined`), by name.
#pragma once

#include <string_view>

#include "nodes.hpp"

namespace outrider::jinja {

/// Null when there is none.
[[nodiscard]] TestFunction find_test(std::string_view name);

}  // namespace outrider::jinja
