// What methods and filters do to texts alike.
#include <string>
#include <string_view>
#include <vector>

#include "methods.hpp"
#include "operators.hpp"
#include "unicode.hpp"

namespace outrider::jinja {

Text stripped(const Text& text, const Value* characters, Ends ends, Meter& meter) {
    const std::string_view set = characters != nullptr ? text_of(*characters, "strip").view() : std::string_view();
    meter.step((1 + text.size() / 64) * set.size());
    const std::string_view* wanted = characters != nullptr ? &set : nullptr;
    const std::size_t end = ends == Ends::left ? text.size() : right_of_text(text.view(), wanted);
    const std::size_t begin = ends == Ends::right ? 0 : left_of_text(text.view().substr(0, end), wanted);
    return text.slice(begin, end);
}

Text replaced(const Text& text, const Text& old, const Text& fresh, std::int64_t count, Meter& meter) {
    meter.search(text.size(), old.size());
    Text out;
    std::size_t at = 0;
    for (std::int64_t done = 0; count < 0 || done < count; ++done) {
        std::size_t found = text.view().find(old.view(), at);
        if (found == std::string_view::npos) break;
        meter.made(fresh.size());
        if (old.empty()) {  // before each character, and at the end
            out.append(fresh);
            if (at >= text.size()) return out;
            const std::size_t begin = at;
            (void)next_code_point(text.view(), at);
            out.append(text, begin, at);
            continue;
        }
        out.append(text, at, found);
        out.append(fresh);
        at = found + old.size();
    }
    out.append(text, at, text.size());
    meter.made(text.size());
    return out;
}

Text in_case(const Text& text, Case to) {
    Text out;
    bool first = true;
    text.for_runs([&](std::string_view run, Origin origin) {
        std::string part;
        for (std::size_t at = 0; at < run.size(); first = false) {
            const char32_t c = next_code_point(run, at);
            if (to == Case::upper)
                append_upper(part, c);
            else if (to == Case::folded)
                append_folded(part, c);
            else if (to == Case::capital && first)
                append_title(part, c);
            else
                append_lower(part, c);
        }
        out.append(part, origin);
    });
    return out;
}

std::vector<Text> lines_of(const Text& text, Meter& meter, bool with_ends) {
    std::vector<Text> lines;
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t here = at;
        const char32_t c = next_code_point(text.view(), at);
        const bool ends =
            (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (!ends) continue;
        meter.made(sizeof(Value) + sizeof(String) + here - begin);
        if (c == '\r' && at < text.size() && text.view()[at] == '\n') ++at;
        lines.push_back(text.slice(begin, with_ends ? at : here));
        begin = at;
    }
    if (begin < text.size()) lines.push_back(text.slice(begin, text.size()));
    meter.made(text.size() - begin);
    return lines;
}

Text padded(const Text& text, std::int64_t width, const Text& fill, Ends ends, Meter& meter) {
    const auto length = static_cast<std::int64_t>(code_points(text.view()));
    if (width <= length) return text;
    const std::int64_t missing = width - length;
    meter.made(static_cast<std::size_t>(missing), fill.size());
    const std::int64_t left = ends == Ends::left ? missing : ends == Ends::right ? 0 : missing / 2;
    Text out;
    for (std::int64_t i = 0; i < left; ++i) out.append(fill);
    out.append(text);
    for (std::int64_t i = left; i < missing; ++i) out.append(fill);
    return out;
}

Text centered(const Text& text, std::int64_t width, const Text& fill, Meter& meter) {
    // Where one remains, CPython puts it on the left if the width is odd.
    const auto length = static_cast<std::int64_t>(code_points(text.view()));
    if (width <= length) return text;
    const std::int64_t missing = width - length;
    const std::int64_t right = missing - missing / 2 - (missing & width & 1);
    return padded(padded(text, width - right, fill, Ends::left, meter), width, fill, Ends::right, meter);
}

}  // namespace outrider::jinja
