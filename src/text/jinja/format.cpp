// Values put into a text: `text % values` and text.format(...).
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "evaluator.hpp"
#include "methods.hpp"
#include "operators.hpp"
#include "unicode.hpp"

namespace outrider::jinja {
namespace {

constexpr std::int64_t kWidest = 10'000;

/// What stands between "%" or ":" and the letter.
struct Layout {
    char align = '\0';
    std::string fill = " ";
    bool plus = false, zeros = false, thousands = false;
    std::int64_t width = 0, precision = -1;
    char kind = '\0';
};

std::int64_t take_number(std::string_view text, std::size_t& at) {
    std::int64_t value = 0;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
        value = value * 10 + (text[at++] - '0');
        require(value <= kWidest, "a format wider than {} characters", kWidest);
    }
    return value;
}

std::string with_thousands(std::string_view digits) {
    const std::size_t end = std::min(digits.find('.'), digits.size());
    std::string result;
    for (std::size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && i < end && (end - i) % 3 == 0 && digits[i - 1] != '-') result += ',';
        result += digits[i];
    }
    return result;
}

/// With a plus where there is no minus.
std::string with_sign(const std::string& number) {
    if (number.starts_with('-')) return number;
    std::string result = "+";
    result += number;
    return result;
}

/// A number by the letter of a format. Throws Error for a value that is no number.
std::string number_text(const Value& value, const Layout& layout) {
    require(value.is_number(), "a format of the kind '{}' for a value of the type {}", layout.kind, type_name(value));
    std::string text;
    const bool whole = std::string_view("diu").find(layout.kind) != std::string_view::npos;
    require(!whole || std::abs(value.number()) < 9.3e18, "a format of the kind '{}' for {}", layout.kind,
            value.number());
    switch (layout.kind) {
        case 'd':
        case 'i':
        case 'u':
            text = fmt::format("{}", value.is_integer()
                                         ? value.integer()
                                         : static_cast<std::int64_t>(std::clamp(value.number(), -9e18, 9e18)));
            break;
        case 'x': text = fmt::format("{:x}", integer_of(value, "a format")); break;
        case 'X': text = fmt::format("{:X}", integer_of(value, "a format")); break;
        case 'o': text = fmt::format("{:o}", integer_of(value, "a format")); break;
        case 'b': text = fmt::format("{:b}", integer_of(value, "a format")); break;
        case 'f':
        case 'F': text = fmt::format("{:.{}f}", value.number(), layout.precision < 0 ? 6 : layout.precision); break;
        case 'e': text = fmt::format("{:.{}e}", value.number(), layout.precision < 0 ? 6 : layout.precision); break;
        case 'g': text = fmt::format("{:.{}g}", value.number(), layout.precision < 0 ? 6 : layout.precision); break;
        case '%':
            text = fmt::format("{:.{}f}%", value.number() * 100, layout.precision < 0 ? 6 : layout.precision);
            break;
        default: fail("a format of the kind '{}' is not supported", layout.kind);
    }
    if (layout.thousands) text = with_thousands(text);
    return layout.plus ? with_sign(text) : text;
}

Text laid_out(Text text, const Layout& layout, bool number, Meter& meter) {
    if (number && layout.zeros && layout.align == '\0') {
        const auto missing = layout.width - static_cast<std::int64_t>(text.size());
        if (missing <= 0) return text;
        const bool sign = text.view().starts_with('-') || text.view().starts_with('+');
        Text result = text.slice(0, sign ? 1 : 0);
        result.append(std::string(static_cast<std::size_t>(missing), '0'));
        result.append(text, sign ? 1 : 0, text.size());
        return result;
    }
    const char align = layout.align != '\0' ? layout.align : number ? '>' : '<';
    const Ends ends = align == '>' ? Ends::left : align == '^' ? Ends::both : Ends::right;
    return padded(text, layout.width, Text(layout.fill), ends, meter);
}

/// A text cut to the precision.
Text cut(const Text& text, const Layout& layout) {
    if (layout.precision < 0) return text;
    return text.slice(0, byte_of(text.view(), static_cast<std::size_t>(layout.precision)));
}

Text formatted(const Value& value, const Layout& layout, Meter& meter) {
    const bool letters = layout.kind == '\0' || layout.kind == 's';
    if (value.is_number() && !(letters && value.is<bool>()) && layout.kind != 's') {
        if (layout.kind == '\0' && layout.precision < 0) {
            std::string text(printed(value, meter).view());
            if (layout.thousands) text = with_thousands(text);
            return laid_out(Text(layout.plus ? with_sign(text) : text), layout, true, meter);
        }
        Layout exact = layout;
        if (exact.kind == '\0') exact.kind = 'g';
        return laid_out(Text(number_text(value, exact)), exact, true, meter);
    }
    require(letters, "a format of the kind '{}' for a value of the type {}", layout.kind, type_name(value));
    return laid_out(cut(printed(value, meter), layout), layout, false, meter);
}

/// [[fill]align][+][0][width][,][.precision][kind]
Layout parse_layout(std::string_view text) {
    Layout layout;
    std::size_t at = 0, next = 0;
    const auto is_align = [&](std::size_t i) {
        return i < text.size() && (text[i] == '<' || text[i] == '>' || text[i] == '^');
    };
    if (!text.empty()) (void)next_code_point(text, next);
    if (is_align(next)) {
        layout.fill = std::string(text.substr(0, next));
        layout.align = text[next], at = next + 1;
    } else if (is_align(0)) {
        layout.align = text[0], at = 1;
    }
    if (at < text.size() && text[at] == '+') layout.plus = true, ++at;
    if (at < text.size() && text[at] == '0') layout.zeros = true, ++at;
    layout.width = take_number(text, at);
    if (at < text.size() && text[at] == ',') layout.thousands = true, ++at;
    if (at < text.size() && text[at] == '.') layout.precision = take_number(text, ++at);
    if (at < text.size()) layout.kind = text[at++];
    require(at >= text.size(), "the format '{}' is not supported", text);
    return layout;
}

/// The arguments of `%`, one after the other or by name.
class PercentValues {
public:
    PercentValues(const Value& values, Meter& meter) : values_(values), meter_(meter) {}

    const Value& next() {
        const List* list = values_.list();
        if (list == nullptr || list->kind != Series::tuple) {
            require(next_++ == 0, "not enough values for a format");
            return values_;
        }
        require(next_ < list->items.size(), "not enough values for a format");
        return list->items[next_++];
    }

    const Value& named(std::string_view name) {
        named_ = true;
        if (values_.dict() != nullptr) meter_.step(values_.dict()->entries().size() / 8);
        const Value* found = values_.dict() != nullptr ? values_.dict()->find(name) : nullptr;
        require(found != nullptr, "a format without a value for '{}'", name);
        return *found;
    }

    void finish() const {
        const List* list = values_.list();
        const bool tuple = list != nullptr && list->kind == Series::tuple;
        // What has items, but is no tuple and no text, may be left over.
        const bool left = values_.dict() != nullptr || named_ || list != nullptr || values_.is_undefined();
        const std::size_t count = tuple ? list->items.size() : left ? next_ : 1;
        require(next_ == count, "more values than a format takes");
    }

private:
    const Value& values_;
    Meter& meter_;
    std::size_t next_ = 0;
    bool named_ = false;
};

/// What follows a "%"; `at` moves behind it.
void append_percent(Text& out, std::string_view text, std::size_t& at, PercentValues& values, Meter& meter) {
    std::string_view name;
    const bool named = at < text.size() && text[at] == '(';
    if (named) {
        const std::size_t end = text.find(')', at);
        require(end != std::string_view::npos, "a format without ')'");
        name = text.substr(at + 1, end - at - 1);
        at = end + 1;
    }
    Layout layout;
    layout.align = '>';
    for (; at < text.size() && std::string_view("-+0 #").find(text[at]) != std::string_view::npos; ++at) {
        if (text[at] == '-') layout.align = '<';
        if (text[at] == '+') layout.plus = true;
        if (text[at] == '0') layout.zeros = true;
    }
    layout.width = take_number(text, at);
    if (at < text.size() && text[at] == '.') layout.precision = take_number(text, ++at);
    require(at < text.size(), "a format that ends within '%'");
    layout.kind = text[at++];
    if (layout.kind == '%') return out.append("%");
    const Value& value = named ? values.named(name) : values.next();
    if (layout.kind == 's' || layout.kind == 'r' || layout.kind == 'a') {
        Text shown;
        if (layout.kind == 's')
            append_printed(shown, value, meter);
        else
            append_repr(shown, value, meter);
        return out.append(laid_out(cut(shown, layout), layout, false, meter));
    }
    if (layout.zeros && layout.align == '>') layout.align = '\0';
    out.append(laid_out(Text(number_text(value, layout)), layout, true, meter));
}

/// The fields of text.format.
class BraceFields {
public:
    BraceFields(Evaluator& run, const Arguments& arguments) : run_(run), arguments_(arguments) {}

    /// `field`: what stands between the braces.
    Text operator()(std::string_view field) {
        std::string_view name = field, layout;
        char conversion = '\0';
        const std::size_t end = field.find_first_of("!:");
        if (end != std::string_view::npos) {
            name = field.substr(0, end);
            std::size_t colon = end;
            if (field[end] == '!') {
                require(end + 1 < field.size() && (end + 2 == field.size() || field[end + 2] == ':'),
                        "a format field '{{{}}}' is not whole", field);
                conversion = field[end + 1];
                colon = end + 2;
            }
            if (colon < field.size()) layout = field.substr(colon + 1);
        }
        const Value value = find(name);
        Meter& meter = run_.meter();
        require(conversion == '\0' || conversion == 's' || conversion == 'r', "a format with '!{}' is not supported",
                conversion);
        if (conversion == '\0') return formatted(value, parse_layout(layout), meter);
        Text shown;
        if (conversion == 'r')
            append_repr(shown, value, meter);
        else
            append_printed(shown, value, meter);
        return formatted(Value(std::move(shown)), parse_layout(layout), meter);
    }

private:
    Value find(std::string_view path) {
        const std::size_t end = std::min(path.find_first_of(".["), path.size());
        Value value = first(path.substr(0, end));
        for (std::size_t at = end; at < path.size();) {
            const bool bracket = path[at] == '[';
            const std::size_t stop =
                std::min(bracket ? path.find(']', at) : path.find_first_of(".[", at + 1), path.size());
            const std::string_view part = path.substr(at + 1, stop - at - 1);
            require(!part.empty(), "a format field '{{{}}}' is not whole", path);
            std::size_t digits = 0;
            const bool index = bracket && part.find_first_not_of("0123456789") == std::string_view::npos;
            value = index     ? run_.item(value, Value(take_number(part, digits)))
                    : bracket ? run_.item(value, Value(Text(std::string(part))))
                              : run_.attribute(value, std::make_shared<const std::string>(part));
            at = bracket ? stop + 1 : stop;
        }
        return value;
    }

    Value first(std::string_view name) {
        std::size_t at = 0;
        if (name.find_first_not_of("0123456789") == std::string_view::npos) {
            const std::size_t index = name.empty() ? next_++ : static_cast<std::size_t>(take_number(name, at));
            require(index < arguments_.placed.size(), "format: there is no argument {}", index);
            return arguments_.placed[index];
        }
        run_.meter().step(arguments_.named.size() / 8);
        const auto found = std::ranges::find(arguments_.named, name, &std::pair<std::string, Value>::first);
        require(found != arguments_.named.end(), "format: there is no argument '{}'", name);
        return found->second;
    }

    Evaluator& run_;
    const Arguments& arguments_;
    std::size_t next_ = 0;
};

}  // namespace

Text format_by_percent(const Text& pattern, const Value& values, Meter& meter) {
    PercentValues all(values, meter);
    Text out;
    const std::string_view text = pattern.view();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t percent = std::min(text.find('%', at), text.size());
        out.append(pattern, at, percent);
        at = percent;
        if (at >= text.size()) break;
        const std::size_t before = out.size();
        append_percent(out, text, ++at, all, meter);
        meter.step();
        meter.made(out.size() - before);
    }
    all.finish();
    meter.made(pattern.size());
    return out;
}

Text format_by_braces(Evaluator& run, const Text& pattern, const Arguments& arguments) {
    BraceFields fields(run, arguments);
    Text out;
    const std::string_view text = pattern.view();
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t brace = std::min(text.find_first_of("{}", at), text.size());
        out.append(pattern, at, brace);
        at = brace;
        if (at >= text.size()) break;
        if (at + 1 < text.size() && text[at + 1] == text[at]) {
            out.append(pattern, at, at + 1);
            at += 2;
            continue;
        }
        const std::size_t end = text[at] == '{' ? text.find('}', at) : std::string_view::npos;
        require(end != std::string_view::npos, "format: a brace without its other one");
        const std::size_t before = out.size();
        out.append(fields(text.substr(at + 1, end - at - 1)));
        run.meter().step();
        run.meter().made(out.size() - before);
        at = end + 1;
    }
    run.meter().made(pattern.size());
    return out;
}

}  // namespace outrider::jinja
