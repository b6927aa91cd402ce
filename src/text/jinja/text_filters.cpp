// Filters over texts and numbers.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "evaluator.hpp"
#include "filters.hpp"
#include "methods.hpp"
#include "operators.hpp"
#include "unicode.hpp"

namespace outrider::jinja {
namespace {

/// Like Jinja's soft_str: markup stays markup, everything else is printed.
Value softened(const Value& input, Meter& meter) {
    return input.string() != nullptr ? input : Value(printed(input, meter));
}

Value same_kind(const Value& input, Text text) {
    return Value(std::move(text), input.string() != nullptr && input.string()->markup);
}

Value trim(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("trim", {"chars"});
    const Value* characters = arguments[0] != nullptr && !arguments[0]->is_none() ? arguments[0] : nullptr;
    return same_kind(input, stripped(printed(input, run.meter()), characters, Ends::both, run.meter()));
}

template <Case To>
Value cased(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("a filter of case", {});
    return same_kind(input, in_case(printed(input, run.meter()), To));
}

/// Jinja's own rule: a capital behind white space and - ( { [ <.
Value title(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("title", {});
    Text out;
    bool begins = true;
    printed(input, run.meter()).for_runs([&](std::string_view text, Origin origin) {
        std::string part;
        for (std::size_t at = 0; at < text.size();) {
            const char32_t c = next_code_point(text, at);
            if (begins)
                append_upper(part, c);
            else
                append_lower(part, c);
            begins = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
        }
        out.append(part, origin);
    });
    return Value(std::move(out));
}

Value replace(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("replace", {"old", "new", "count"});
    Meter& meter = run.meter();
    const Value* count = arguments[2] != nullptr && !arguments[2]->is_none() ? arguments[2] : nullptr;
    return Value(replaced(printed(input, meter), printed(arguments.needed(0, "replace"), meter),
                          printed(arguments.needed(1, "replace"), meter), count ? integer_of(*count, "replace") : -1,
                          meter));
}

Value indent(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("indent", {"width", "first", "blank"});
    Meter& meter = run.meter();
    Text before("    ");
    if (arguments[0] != nullptr && arguments[0]->string() != nullptr)
        before = arguments[0]->string()->text;
    else if (arguments[0] != nullptr)
        before = padded(Text(), integer_of(*arguments[0], "indent"), Text(" "), Ends::left, meter);
    Text text = text_of(input, "indent");
    text.append("\n");
    Text out;
    bool first = true;
    for (const Text& line : lines_of(text, meter)) {
        if (!first) out.append("\n");
        if (first ? arguments.flag(1, false) : (arguments.flag(2, false) || !line.empty())) out.append(before);
        out.append(line);
        first = false;
        meter.made(before.size() + line.size() + 1);
    }
    return same_kind(input, std::move(out));
}

Value tojson(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
    Meter& meter = run.meter();
    JsonStyle style;
    style.ascii = arguments.flag(0, false);
    style.sorted = arguments.flag(3, false);
    Text indent;
    if (arguments[1] != nullptr && !arguments[1]->is_none()) {
        indent = arguments[1]->string() != nullptr
                     ? arguments[1]->string()->text
                     : padded(Text(), integer_of(*arguments[1], "tojson"), Text(" "), Ends::left, meter);
        style.indent = &indent;
        style.item = Text(",");
    }
    if (arguments[2] != nullptr && !arguments[2]->is_none()) {
        const std::vector<Value> both = items_of(*arguments[2], meter);
        require(both.size() == 2, "tojson: {} separators, expected two", both.size());
        style.item = text_of(both[0], "tojson"), style.key = text_of(both[1], "tojson");
    }
    return Value(to_json(input, style, meter));
}

Value string(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("string", {});
    return softened(input, run.meter());
}

Value safe(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("safe", {});
    return Value(printed(input, run.meter()), true);
}

Value forceescape(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("forceescape", {});
    Text text = html_escaped(printed(input, run.meter()));
    run.meter().made(text.size());
    return Value(std::move(text), true);
}

Value escape(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("escape", {});
    if (input.string() != nullptr && input.string()->markup) return input;
    return forceescape(run, input, arguments);
}

Value center(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("center", {"width"});
    return same_kind(input,
                     centered(printed(input, run.meter()), arguments.integer(0, 80, "center"), Text(" "), run.meter()));
}

Value format(Evaluator& run, const Value& input, Arguments& arguments) {
    Value values = Value::list(arguments.placed, Series::tuple);
    require(arguments.placed.empty() || arguments.named.empty(), "format: placed and named arguments at once");
    if (!arguments.named.empty()) {
        auto dict = std::make_shared<Dict>();
        for (const auto& [name, value] : arguments.named) dict->set(Value(Text(name)), value, run.meter());
        values = Value(std::shared_ptr<const Dict>(std::move(dict)));
    }
    return same_kind(input, format_by_percent(printed(input, run.meter()), values, run.meter()));
}

Value wordcount(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("wordcount", {});
    const Text text = printed(input, run.meter());
    std::int64_t words = 0;
    bool inside = false;
    for (std::size_t at = 0; at < text.size();) {
        const char32_t c = next_code_point(text.view(), at);
        const bool letter = c == '_' || is_letter(c) || is_digit(c);
        words += letter && !inside;
        inside = letter;
    }
    return Value(words);
}

/// A number of a whole text, with white space around it; nothing if there is more or less.
template <typename T, typename... How>
bool read_number(std::string_view text, T& value, How... how) {
    text = text.substr(0, right_of_text(text));
    text.remove_prefix(left_of_text(text));
    if (text.starts_with('+') && !text.substr(1).starts_with('-')) text.remove_prefix(1);
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i)
        if (text[i] != '_' || i == 0 || i + 1 == text.size()) plain += text[i];
    const auto result = std::from_chars(plain.data(), plain.data() + plain.size(), value, how...);
    return result.ec == std::errc() && result.ptr == plain.data() + plain.size();
}

Value to_int(Evaluator&, const Value& input, Arguments& arguments) {
    arguments.bind("int", {"default", "base"});
    const Value otherwise = arguments[0] != nullptr ? *arguments[0] : Value(std::int64_t{0});
    if (input.is_integer()) return Value(input.integer());
    double real = 0;
    if (const String* string = input.string()) {
        const auto base = static_cast<int>(std::clamp<std::int64_t>(arguments.integer(1, 10, "int"), 2, 36));
        std::string_view digits = string->text.view();
        if (base != 10 && digits.size() > 2 && digits[0] == '0' &&
            std::string_view("xXoObB").find(digits[1]) != std::string_view::npos)
            digits.remove_prefix(2);
        std::int64_t value = 0;
        if (read_number(digits, value, base)) return Value(value);
        if (!read_number(digits, real)) return otherwise;
    } else if (input.is<double>()) {
        real = input.number();
    } else {
        require(!input.is_undefined(), "int: an undefined value");
        return otherwise;
    }
    return std::abs(real) < 9.2e18 ? Value(static_cast<std::int64_t>(real)) : otherwise;
}

Value to_float(Evaluator&, const Value& input, Arguments& arguments) {
    arguments.bind("float", {"default"});
    if (input.is_number()) return Value(input.number());
    double value = 0;
    if (input.string() != nullptr && read_number(input.string()->text.view(), value)) return Value(value);
    require(!input.is_undefined(), "float: an undefined value");
    return arguments[0] != nullptr ? *arguments[0] : Value(0.0);
}

Value absolute(Evaluator&, const Value& input, Arguments& arguments) {
    arguments.bind("abs", {});
    require(input.is_number(), "abs: a value of the type {}, expected a number", type_name(input));
    return input.number() < 0 ? operate(UnaryKind::minus, input) : operate(UnaryKind::plus, input);
}

/// To a multiple of 10^digits, the even one in the middle.
std::int64_t round_integer(std::int64_t value, std::int64_t digits) {
    if (digits > 19) return 0;
    __extension__ using Wide = __int128;
    Wide scale = 1;
    for (std::int64_t i = 0; i < digits; ++i) scale *= 10;
    Wide low = value / scale, rest = value - low * scale;
    if (rest < 0) --low, rest += scale;
    if (2 * rest > scale || (2 * rest == scale && low % 2 != 0)) ++low;
    const Wide rounded = low * scale;
    require(rounded >= std::numeric_limits<std::int64_t>::min() && rounded <= std::numeric_limits<std::int64_t>::max(),
            "an integer beyond 64 bits");
    return static_cast<std::int64_t>(rounded);
}

/// To the even neighbour in the middle, as Python rounds.
Value round(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("round", {"precision", "method"});
    require(input.is_number(), "round: a value of the type {}, expected a number", type_name(input));
    const std::int64_t precision = std::clamp<std::int64_t>(arguments.integer(0, 0, "round"), -300, 300);
    const Text method = arguments[1] != nullptr ? printed(*arguments[1], run.meter()) : Text("common");
    if (method.view() == "common") {
        if (input.is_integer() && precision >= 0) return Value(input.integer());
        double value = input.number();
        if (input.is_integer()) return Value(round_integer(input.integer(), -precision));
        if (precision < 0) {
            const double scale = std::pow(10.0, static_cast<double>(-precision));
            value = std::nearbyint(value / scale) * scale;
            return Value(value);
        }
        const std::string digits = fmt::format("{:.{}f}", value, precision);
        (void)std::from_chars(digits.data(), digits.data() + digits.size(), value);
        return Value(value);
    }
    require(method.view() == "ceil" || method.view() == "floor",
            "round: the method '{}', expected common, ceil or floor", method.view());
    const double scale = std::pow(10.0, static_cast<double>(precision)), value = input.number() * scale;
    return Value((method.view() == "ceil" ? std::ceil(value) : std::floor(value)) / scale);
}

/// Percent signs for all but letters, digits and _.-~; "/" stays and a space becomes "+" by choice.
void append_quoted(Text& out, const Text& text, bool in_query, Meter& meter) {
    text.for_runs([&](std::string_view run, Origin origin) {
        std::string part;
        for (const char c : run) {
            const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                               std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && !in_query);
            if (plain)
                part += c;
            else if (c == ' ' && in_query)
                part += '+';
            else
                part += fmt::format("%{:02X}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        }
        meter.made(part.size());
        out.append(part, origin);
    });
}

/// A text, or pairs as a query: a=1&b=2.
Value urlencode(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("urlencode", {});
    Meter& meter = run.meter();
    Text out;
    if (input.dict() == nullptr && input.list() == nullptr && !input.is_undefined()) {
        append_quoted(out, printed(input, meter), false, meter);
        return Value(std::move(out));
    }
    const auto put = [&](const Value& key, const Value& value) {
        if (!out.empty()) out.append("&");
        append_quoted(out, printed(key, meter), true, meter);
        out.append("=");
        append_quoted(out, printed(value, meter), true, meter);
    };
    if (const Dict* dict = input.dict()) {
        for (const auto& [key, value] : dict->entries()) put(key, value);
        return Value(std::move(out));
    }
    for (const Value& pair : items_of(input, meter)) {
        const std::vector<Value> both = items_of(pair, meter);
        require(both.size() == 2, "urlencode: an item of {} values, expected a key and a value", both.size());
        put(both[0], both[1]);
    }
    return Value(std::move(out));
}

Value truncate(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("truncate", {"length", "killwords", "end", "leeway"});
    const Text dots("...");
    const Text& end = arguments[2] != nullptr ? text_of(*arguments[2], "truncate") : dots;
    const std::int64_t length = arguments.integer(0, 255, "truncate"), leeway = arguments.integer(3, 5, "truncate");
    require(length >= 0 && leeway >= 0 && length < 1'000'000'000, "truncate: a length of {} and a leeway of {}", length,
            leeway);
    const auto cut = length - static_cast<std::int64_t>(code_points(end.view()));
    require(cut >= 0, "truncate: a length of {} for an end of {} bytes", length, end.size());
    if (static_cast<std::int64_t>(length_of(input, run.meter())) <=
        length + std::min<std::int64_t>(leeway, 1'000'000'000))
        return input;
    const Text& text = text_of(input, "truncate");
    Text kept = text.slice(0, byte_of(text.view(), static_cast<std::size_t>(cut)));
    if (!arguments.flag(1, false)) {
        const std::size_t space = kept.view().rfind(' ');
        if (space != std::string_view::npos) kept = kept.slice(0, space);
    }
    kept.append(end);
    run.meter().made(kept.size());
    return Value(std::move(kept));
}

constexpr std::pair<std::string_view, FilterFunction> kFilters[] = {{"trim", trim},
                                                                    {"tojson", tojson},
                                                                    {"string", string},
                                                                    {"upper", cased<Case::upper>},
                                                                    {"lower", cased<Case::lower>},
                                                                    {"capitalize", cased<Case::capital>},
                                                                    {"title", title},
                                                                    {"replace", replace},
                                                                    {"indent", indent},
                                                                    {"safe", safe},
                                                                    {"escape", escape},
                                                                    {"e", escape},
                                                                    {"forceescape", forceescape},
                                                                    {"center", center},
                                                                    {"format", format},
                                                                    {"wordcount", wordcount},
                                                                    {"int", to_int},
                                                                    {"float", to_float},
                                                                    {"abs", absolute},
                                                                    {"round", round},
                                                                    {"urlencode", urlencode},
                                                                    {"truncate", truncate}};

}  // namespace

FilterFunction find_text_filter(std::string_view name) {
    for (const auto& [known, filter] : kFilters)
        if (known == name) return filter;
    return nullptr;
}

FilterFunction find_filter(std::string_view name) {
    const FilterFunction found = find_text_filter(name);
    return found != nullptr ? found : find_sequence_filter(name);
}

Text html_escaped(const Text& text) {
    Text out;
    text.for_runs([&](std::string_view run, Origin origin) {
        std::string part;
        for (const char c : run) {
            if (c == '&')
                part += "&amp;";
            else if (c == '<')
                part += "&lt;";
            else if (c == '>')
                part += "&gt;";
            else if (c == '\'')
                part += "&#39;";
            else if (c == '"')
                part += "&#34;";
            else
                part += c;
        }
        out.append(part, origin);
    });
    return out;
}

}  // namespace outrider::jinja
