// str() and repr() of Python.
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "unicode.hpp"
#include "value.hpp"

namespace outrider::jinja {
namespace {

void append_escaped(std::string& out, char32_t c, char quote) {
    if (c == static_cast<char32_t>(quote) || c == '\\') {
        out += '\\';
        out += static_cast<char>(c);
    } else if (c == '\n') {
        out += "\\n";
    } else if (c == '\r') {
        out += "\\r";
    } else if (c == '\t') {
        out += "\\t";
    } else if (is_printable(c)) {
        append_code_point(out, c);
    } else if (c < 0x100) {
        out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    } else {
        out += c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<unsigned>(c))
                           : fmt::format("\\U{:08x}", static_cast<unsigned>(c));
    }
}

/// In the quotes that need no escape, as Python chooses them.
void append_quoted(Text& out, const Text& text) {
    const bool single = text.view().find('\'') != std::string_view::npos,
               twofold = text.view().find('"') != std::string_view::npos;
    const char quote = single && !twofold ? '"' : '\'';
    out.append(std::string_view(&quote, 1));
    text.for_runs([&](std::string_view run, Origin origin) {
        std::string escaped;
        for (std::size_t at = 0; at < run.size();) append_escaped(escaped, next_code_point(run, at), quote);
        out.append(escaped, origin);
    });
    out.append(std::string_view(&quote, 1));
}

void append_list(Text& out, const List& list, Meter& meter) {
    if (list.kind == Series::generator) return out.append("<generator>");
    if (list.kind == Series::range) {
        const std::int64_t first = list.items.empty() ? 0 : list.items.front().integer();
        const double step =
            list.items.size() < 2 ? 1 : list.items[1].number() - static_cast<double>(first);  // may exceed 64 bits
        const double end = static_cast<double>(first) + step * static_cast<double>(list.items.size());
        out.append(fmt::format("range({}, {:.0f}", first, end));
        return out.append(step == 1 ? ")" : fmt::format(", {:.0f})", step));
    }
    constexpr const char* kBegins[] = {"[", "(", "", "", "dict_keys([", "dict_values([", "dict_items(["};
    const auto kind = static_cast<std::size_t>(list.kind);
    out.append(kBegins[kind]);
    for (std::size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) out.append(", ");
        append_repr(out, list.items[i], meter);
    }
    if (list.kind == Series::tuple && list.items.size() == 1) out.append(",");
    out.append(list.kind == Series::list ? "]" : list.kind == Series::tuple ? ")" : "])");
}

void append_dict(Text& out, const Dict& dict, Meter& meter) {
    out.append("{");
    for (std::size_t i = 0; i < dict.entries().size(); ++i) {
        if (i > 0) out.append(", ");
        append_repr(out, dict.entries()[i].first, meter);
        out.append(": ");
        append_repr(out, dict.entries()[i].second, meter);
    }
    out.append("}");
}

}  // namespace

std::string printed_number(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    const double size = std::abs(value);
    char buffer[400];  // the shortest digits that read back the same; an exponent from 1e16 on and below 1e-4
    const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value,
                                   plain ? std::chars_format::fixed : std::chars_format::scientific);
    std::string text(buffer, end.ptr);
    if (plain && text.find('.') == std::string::npos) text += ".0";
    return text;
}

void append_repr(Text& out, const Value& value, Meter& meter) {
    meter.step();
    const std::size_t before = out.size();
    if (const String* string = value.string())
        append_quoted(out, string->text);
    else if (const List* list = value.list())
        append_list(out, *list, meter);
    else if (const Dict* dict = value.dict())
        append_dict(out, *dict, meter);
    else if (value.is_undefined())
        out.append("Undefined");
    else
        append_printed(out, value, meter);
    meter.made(out.size() - before);
}

void append_printed(Text& out, const Value& value, Meter& meter) {
    const std::size_t before = out.size();
    if (const String* string = value.string())
        out.append(string->text);
    else if (value.is_none())
        out.append("None");
    else if (value.is<bool>())
        out.append(value.integer() != 0 ? "True" : "False");
    else if (value.is_integer())
        out.append(fmt::format("{}", value.integer()));
    else if (value.is<double>())
        out.append(printed_number(value.number()));
    else if (value.list() != nullptr || value.dict() != nullptr)
        return append_repr(out, value, meter);
    else if (value.is<Loop*>())
        out.append(fmt::format("<LoopContext {}/{}>", std::get<Loop*>(value.held())->index + 1,
                               std::get<Loop*>(value.held())->items.size()));
    else if (!value.is_undefined())
        out.append(fmt::format("<{}>", type_name(value)));
    meter.made(out.size() - before);
}

Text printed(const Value& value, Meter& meter) {
    Text text;
    append_printed(text, value, meter);
    return text;
}

}  // namespace outrider::jinja
