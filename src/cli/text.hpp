// Text for people: quoted bytes, and a table with aligned columns.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace outrider::cli {

/// `bytes` between double quotes on one line: control characters and quotes escaped as in JSON, bytes that are not
/// UTF-8 as \xNN.
[[nodiscard]] std::string quote(std::string_view bytes);

/// Rows of cells, the first row being the head, as lines with columns aligned: the first to the left, others right.
[[nodiscard]] std::string table(const std::vector<std::vector<std::string>>& rows);

}  // namespace outrider::cli
