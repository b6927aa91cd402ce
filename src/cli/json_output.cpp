#include "json_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include <outrider/core/detail/utf8_stream.hpp>

#include "text.hpp"

namespace outrider::cli {
namespace {

using nlohmann::ordered_json;

bool is_text(const ordered_json& value) {
    if (value.is_string()) return is_valid_utf8(value.get_ref<const std::string&>());
    return !value.is_array() || std::all_of(value.begin(), value.end(), is_text);
}

void escape_strings(ordered_json& value) {
    if (value.is_string()) value = escape_bytes(value.get_ref<const std::string&>());
    if (value.is_array())
        for (ordered_json& entry : value) escape_strings(entry);
}

void make_text(ordered_json& document) {
    if (document.is_array())
        for (ordered_json& entry : document) make_text(entry);
    if (!document.is_object()) return;
    ordered_json escaped = ordered_json::array();
    for (auto& [name, value] : document.items()) {
        make_text(value);
        if (is_text(value)) continue;
        escape_strings(value);
        escaped.push_back(name);
    }
    if (!escaped.empty()) document["escaped"] = std::move(escaped);
}

}  // namespace

std::string escape_bytes(std::string_view bytes) {
    std::string out;
    while (!bytes.empty()) {
        const std::size_t n = character_length(bytes);
        if (n == 0)
            fmt::format_to(std::back_inserter(out), "\\x{:02X}", static_cast<unsigned char>(bytes.front()));
        else if (bytes.front() == '\\')
            out += "\\\\";
        else
            out += bytes.substr(0, n);
        bytes.remove_prefix(std::max<std::size_t>(n, 1));
    }
    return out;
}

std::string to_text(ordered_json document, int indent) {
    make_text(document);
    return document.dump(indent);
}

}  // namespace outrider::cli
