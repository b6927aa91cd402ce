// JSON of strings that need not be UTF-8: names of files may hold any bytes, and JSON holds text alone.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace outrider::cli {

/// Bytes as text that loses nothing: what is no UTF-8 becomes \xHH, and a backslash two of them.
[[nodiscard]] std::string escape_bytes(std::string_view bytes);

/// The document as text; `indent` as in dump. Where a member of an object is, or a list in it holds, a string that is
/// no UTF-8, all strings of that member are escaped, and "escaped" beside it lists the member's name. All other strings
/// are what they are.
[[nodiscard]] std::string to_text(nlohmann::ordered_json document, int indent = -1);

}  // namespace outrider::cli
