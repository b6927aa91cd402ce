#include "text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>

#include <outrider/core/detail/utf8_stream.hpp>

namespace outrider::cli {
namespace {

/// Columns that a text takes: code points, which is right for what the tables hold.
std::size_t width(std::string_view text) {
    return static_cast<std::size_t>(
        std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

}  // namespace

std::size_t character_length(std::string_view bytes) {
    for (std::size_t n = 1; n <= std::min<std::size_t>(4, bytes.size()); ++n)
        if (is_valid_utf8(bytes.substr(0, n))) return n;
    return 0;
}

std::string quote(std::string_view bytes) {
    std::string out = "\"";
    while (!bytes.empty()) {
        const std::size_t n = character_length(bytes);
        const auto byte = static_cast<unsigned char>(bytes.front());
        if (n == 0)
            fmt::format_to(std::back_inserter(out), "\\x{:02X}", byte);
        else if (byte == '\n')
            out += "\\n";
        else if (byte == '\t')
            out += "\\t";
        else if (byte == '\r')
            out += "\\r";
        else if (byte < 0x20 || byte == 0x7F)
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
        else if (byte == '"' || byte == '\\')
            out += '\\', out += bytes.front();
        else
            out += bytes.substr(0, n);
        bytes.remove_prefix(std::max<std::size_t>(n, 1));
    }
    return out += '"';
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows) {
        widths.resize(std::max(widths.size(), row.size()), 0);
        for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
    }
    std::string out;
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t c = 0; c < row.size(); ++c) {
            const std::string space(widths[c] - width(row[c]), ' ');
            line += (c > 0 ? "  " : "") + (c == 0 ? row[c] + space : space + row[c]);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + '\n';
    }
    return out;
}

}  // namespace outrider::cli
