// JSON as a template's values.
#pragma once

#include <nlohmann/json.hpp>

#include "value.hpp"

namespace outrider::jinja {

/// Strings are of Origin::user. Throws Error for nesting that is too deep and integers beyond 64 bits.
[[nodiscard]] Value from_json(const nlohmann::ordered_json& json, Meter& meter);

}  // namespace outrider::jinja
