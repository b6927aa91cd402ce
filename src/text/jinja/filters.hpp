// The filters of Jinja that chat templates use, by name.
#pragma once

#include <string_view>

#include "nodes.hpp"

namespace outrider::jinja {

/// Null when there is none.
[[nodiscard]] FilterFunction find_filter(std::string_view name);

/// Those over text and numbers (text_filters.cpp), and over sequences (sequence_filters.cpp).
[[nodiscard]] FilterFunction find_text_filter(std::string_view name);
[[nodiscard]] FilterFunction find_sequence_filter(std::string_view name);

/// HTML's five characters as entities (markupsafe.escape).
[[nodiscard]] Text html_escaped(const Text& text);

}  // namespace outrider::jinja
