// JSON that a host gives as text.
#pragma once

#include <nlohmann/json.hpp>

#include <string_view>

namespace outrider::detail {

/// Throws Error, which begins with `what`, unless it is an object.
[[nodiscard]] nlohmann::ordered_json parse_object(std::string_view text, const char* what);

}  // namespace outrider::detail
