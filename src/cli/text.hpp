// Text for people: quoted bytes, and a table with aligned columns.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace outrider::cli {

/// Length of the well-formed UTF-8 character at the front of `bytes`; 0 when there is none.
[[nodiscard]] std::size_t character_length(std::string_view bytes);

/// `bytes` between double quotes on one line: control characters and quotes escaped as in JSON, bytes that are not
/// UTF-8 as \xNN.
[[nodiscard]] std::string quote(std::string_view bytes);

/// Rows of cells, the first row being the head, as lines with columns aligned: the first to the left, others right.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace outrider::cli
