// The methods of Python's str, which count in code points.
#include <algorithm>
#include <optional>

#include "evaluator.hpp"
#include "methods.hpp"
#include "operators.hpp"
#include "unicode.hpp"

namespace outrider::jinja {
namespace {

const Text& text_argument(const Arguments& arguments, std::size_t i, std::string_view callee) {
    return text_of(arguments.needed(i, callee), callee);
}

/// The argument, or nothing where it is left out or none.
const Value* optional_argument(const Arguments& arguments, std::size_t i) {
    return arguments[i] != nullptr && !arguments[i]->is_none() ? arguments[i] : nullptr;
}

Value strip_with(const Text& text, Arguments& arguments, Ends ends) {
    arguments.bind("strip", {"chars"});
    return Value(stripped(text, optional_argument(arguments, 0), ends));
}
Value strip(Evaluator&, const Text& text, Arguments& arguments) { return strip_with(text, arguments, Ends::both); }
Value lstrip(Evaluator&, const Text& text, Arguments& arguments) { return strip_with(text, arguments, Ends::left); }
Value rstrip(Evaluator&, const Text& text, Arguments& arguments) { return strip_with(text, arguments, Ends::right); }

/// Bytes [begin, end) that the arguments `first` and the next one name in code points.
std::pair<std::size_t, std::size_t> part_of(const Text& text, const Arguments& arguments, std::size_t first,
                                            std::string_view callee) {
    const auto count = static_cast<std::int64_t>(code_points(text.view()));
    const auto place = [&](std::size_t i, std::int64_t otherwise) {
        const Value* value = optional_argument(arguments, i);
        std::int64_t at = value != nullptr ? integer_of(*value, callee) : otherwise;
        if (at < 0) at = std::max<std::int64_t>(at < -count ? 0 : at + count, 0);
        return byte_of(text.view(), static_cast<std::size_t>(std::min(at, count)));
    };
    return {place(first, 0), place(first + 1, count)};
}

Value matches_end(const Text& text, Arguments& arguments, bool front, std::string_view callee) {
    arguments.bind(callee, {"prefix", "start", "end"});
    const auto [begin, end] = part_of(text, arguments, 1, callee);
    if (begin > end) return Value(false);
    const std::string_view part = text.view().substr(begin, end - begin);
    const auto matches = [&](const Value& value) {
        const std::string_view wanted = text_of(value, callee).view();
        return front ? part.starts_with(wanted) : part.ends_with(wanted);
    };
    const Value& wanted = arguments.needed(0, callee);
    if (const List* list = wanted.list(); list != nullptr && list->kind == Series::tuple)
        return Value(std::ranges::any_of(list->items, matches));
    return Value(matches(wanted));
}
Value startswith(Evaluator&, const Text& text, Arguments& arguments) {
    return matches_end(text, arguments, true, "startswith");
}
Value endswith(Evaluator&, const Text& text, Arguments& arguments) {
    return matches_end(text, arguments, false, "endswith");
}

Value replace(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("replace", {"old", "new", "count"});
    return Value(replaced(text, text_argument(arguments, 0, "replace"), text_argument(arguments, 1, "replace"),
                          arguments.integer(2, -1, "replace"), run.meter()));
}

Value remove_end(const Text& text, Arguments& arguments, bool front) {
    arguments.bind("removeprefix", {"prefix"});
    const std::string_view end = text_argument(arguments, 0, "removeprefix").view();
    if (front) return Value(text.view().starts_with(end) ? text.slice(end.size(), text.size()) : text);
    return Value(text.view().ends_with(end) ? text.slice(0, text.size() - end.size()) : text);
}
Value removeprefix(Evaluator&, const Text& text, Arguments& arguments) { return remove_end(text, arguments, true); }
Value removesuffix(Evaluator&, const Text& text, Arguments& arguments) { return remove_end(text, arguments, false); }

template <Case To>
Value cased(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("a method of case", {});
    return Value(in_case(text, To));
}

/// str.title: a capital behind whatever is no letter.
Value title(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("title", {});
    Text out;
    bool inside = false;
    text.for_runs([&](std::string_view run, Origin origin) {
        std::string part;
        for (std::size_t at = 0; at < run.size();) {
            const char32_t c = next_code_point(run, at);
            if (inside)
                append_lower(part, c);
            else
                append_title(part, c);
            inside = is_upper(c) || is_lower(c);
        }
        out.append(part, origin);
    });
    return Value(std::move(out));
}

Value swapcase(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("swapcase", {});
    Text out;
    text.for_runs([&](std::string_view run, Origin origin) {
        std::string part;
        for (std::size_t at = 0; at < run.size();) {
            const char32_t c = next_code_point(run, at);
            if (is_upper(c))
                append_lower(part, c);
            else
                append_upper(part, c);
        }
        out.append(part, origin);
    });
    return Value(std::move(out));
}

/// Words between white space, from the left or the right.
std::vector<Value> words_of(const Text& text, std::int64_t most, bool from_right) {
    std::vector<Value> words;
    std::string_view left = text.view();
    while (!left.empty()) {
        const auto offset = static_cast<std::size_t>(left.data() - text.view().data());
        if (from_right)
            left = left.substr(0, right_of_text(left));
        else
            left.remove_prefix(left_of_text(left));
        if (left.empty()) break;
        const auto begin = static_cast<std::size_t>(left.data() - text.view().data());
        if (most >= 0 && std::ssize(words) == most) {
            words.emplace_back(from_right ? text.slice(offset, offset + left.size())
                                          : text.slice(begin, begin + left.size()));
            break;
        }
        std::size_t first = from_right ? 0 : left.size();
        for (std::size_t at = 0; at < left.size();) {
            const std::size_t here = at;
            if (!is_space(next_code_point(left, at))) continue;
            first = from_right ? at : here;
            if (!from_right) break;
        }
        if (from_right)
            words.emplace_back(text.slice(begin + first, begin + left.size())), left = left.substr(0, first);
        else
            words.emplace_back(text.slice(begin, begin + first)), left.remove_prefix(first);
    }
    if (from_right) std::ranges::reverse(words);
    return words;
}

std::vector<Value> parts_of(const Text& text, std::string_view between, std::int64_t most, bool from_right) {
    std::vector<Value> parts;
    std::size_t begin = 0, end = text.size();
    while (most < 0 || std::ssize(parts) < most) {
        const std::string_view left = text.view().substr(begin, end - begin);
        const std::size_t found = from_right ? left.rfind(between) : left.find(between);
        if (found == std::string_view::npos) break;
        if (from_right)
            parts.emplace_back(text.slice(begin + found + between.size(), end)), end = begin + found;
        else
            parts.emplace_back(text.slice(begin, begin + found)), begin += found + between.size();
    }
    parts.emplace_back(text.slice(begin, end));
    if (from_right) std::ranges::reverse(parts);
    return parts;
}

Value split_with(Evaluator& run, const Text& text, Arguments& arguments, bool from_right) {
    arguments.bind("split", {"sep", "maxsplit"});
    const std::int64_t most = arguments.integer(1, -1, "split");
    run.meter().made(text.size() * 2);
    std::vector<Value> parts;
    if (const Value* between = optional_argument(arguments, 0)) {
        const Text& sign = text_of(*between, "split");
        require(!sign.empty(), "split: an empty separator");
        parts = parts_of(text, sign.view(), most, from_right);
    } else {
        parts = words_of(text, most, from_right);
    }
    run.meter().made(parts.size() * sizeof(Value));
    return Value::list(std::move(parts));
}
Value split(Evaluator& run, const Text& text, Arguments& arguments) { return split_with(run, text, arguments, false); }
Value rsplit(Evaluator& run, const Text& text, Arguments& arguments) { return split_with(run, text, arguments, true); }

Value partition_with(const Text& text, Arguments& arguments, bool from_right) {
    arguments.bind("partition", {"sep"});
    const Text& sign = text_argument(arguments, 0, "partition");
    require(!sign.empty(), "partition: an empty separator");
    const std::size_t found = from_right ? text.view().rfind(sign.view()) : text.view().find(sign.view());
    if (found == std::string_view::npos) {
        const Value all(text), none{Text()};
        return Value::list(from_right ? std::vector<Value>{none, none, all} : std::vector<Value>{all, none, none},
                           Series::tuple);
    }
    return Value::list({Value(text.slice(0, found)), Value(text.slice(found, found + sign.size())),
                        Value(text.slice(found + sign.size(), text.size()))},
                       Series::tuple);
}
Value partition(Evaluator&, const Text& text, Arguments& arguments) { return partition_with(text, arguments, false); }
Value rpartition(Evaluator&, const Text& text, Arguments& arguments) { return partition_with(text, arguments, true); }

Value splitlines(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("splitlines", {});
    run.meter().made(text.size());
    std::vector<Value> lines;
    for (Text& line : lines_of(text)) lines.emplace_back(std::move(line));
    run.meter().made(lines.size() * sizeof(Value));
    return Value::list(std::move(lines));
}

Value join(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("join", {"items"});
    Text out;
    bool first = true;
    for (const Value& item : items_of(arguments.needed(0, "join"), run.meter())) {
        if (!first) out.append(text);
        out.append(text_of(item, "join"));
        first = false;
        run.meter().made(text.size() + item.string()->text.size());
    }
    return Value(std::move(out));
}

/// Code points before the match, or nothing.
std::optional<std::int64_t> found_at(const Text& text, const Arguments& arguments, bool last, std::string_view callee) {
    const std::string_view wanted = text_argument(arguments, 0, callee).view();
    const auto [begin, end] = part_of(text, arguments, 1, callee);
    if (begin > end) return std::nullopt;
    const std::string_view part = text.view().substr(begin, end - begin);
    const std::size_t found = last ? part.rfind(wanted) : part.find(wanted);
    if (found == std::string_view::npos) return std::nullopt;
    return static_cast<std::int64_t>(code_points(text.view().substr(0, begin + found)));
}

template <bool Last, bool Must>
Value find(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("find", {"sub", "start", "end"});
    const auto found = found_at(text, arguments, Last, "find");
    require(found || !Must, "index: the text has no '{}'", arguments[0]->string()->text.view());
    return Value(found.value_or(-1));
}

Value count(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("count", {"sub", "start", "end"});
    const std::string_view wanted = text_argument(arguments, 0, "count").view();
    const auto [begin, end] = part_of(text, arguments, 1, "count");
    if (begin > end) return Value(std::int64_t{0});
    const std::string_view part = text.view().substr(begin, end - begin);
    if (wanted.empty()) return Value(static_cast<std::int64_t>(code_points(part) + 1));
    std::int64_t times = 0;
    for (std::size_t at = part.find(wanted); at != std::string_view::npos; at = part.find(wanted, at + wanted.size()))
        ++times;
    return Value(times);
}

template <Ends Where>
Value justified(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("a method of width", {"width", "fillchar"});
    const Text space(" ");
    const Text& fill = arguments[1] != nullptr ? text_of(*arguments[1], "fillchar") : space;
    require(code_points(fill.view()) == 1, "a fill of {} characters, expected one", code_points(fill.view()));
    const std::int64_t width = integer_of(arguments.needed(0, "a method of width"), "width");
    return Value(Where == Ends::both ? centered(text, width, fill, run.meter())
                                     : padded(text, width, fill, Where, run.meter()));
}

Value zfill(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("zfill", {"width"});
    const bool sign = text.view().starts_with('-') || text.view().starts_with('+');
    Text out = text.slice(0, sign ? 1 : 0);
    const std::int64_t width = integer_of(arguments.needed(0, "zfill"), "zfill") - (sign ? 1 : 0);
    out.append(padded(text.slice(sign ? 1 : 0, text.size()), width, Text("0"), Ends::left, run.meter()));
    return Value(std::move(out));
}

Value expandtabs(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("expandtabs", {"tabsize"});
    const std::int64_t size = std::min<std::int64_t>(arguments.integer(0, 8, "expandtabs"), 1'000);
    Text out;
    std::int64_t column = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        const char32_t c = next_code_point(text.view(), at);
        if (c != '\t') {
            out.append(text, begin, at);
            column = c == '\n' || c == '\r' ? 0 : column + 1;
            continue;
        }
        const std::int64_t spaces = size > 0 ? size - column % size : 0;
        run.meter().made(static_cast<std::size_t>(spaces));
        out.append(std::string(static_cast<std::size_t>(spaces), ' '));
        column += spaces;
    }
    return Value(std::move(out));
}

Value format(Evaluator& run, const Text& text, Arguments& arguments) {
    return Value(format_by_braces(run, text, arguments));
}

/// Whether there are characters and all of them are such.
template <bool (*Is)(char32_t)>
Value all_are(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("a method without arguments", {});
    for (std::size_t at = 0; at < text.size();)
        if (!Is(next_code_point(text.view(), at))) return Value(false);
    return Value(!text.empty());
}

bool is_letter_or_digit(char32_t c) { return is_letter(c) || is_digit(c); }

Value isascii(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("isascii", {});
    return Value(is_ascii(text.view()));
}

/// Letters of one case, and none of the other.
template <bool (*Is)(char32_t), bool (*IsOther)(char32_t)>
Value one_case(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("a method without arguments", {});
    bool some = false;
    for (std::size_t at = 0; at < text.size();) {
        const char32_t c = next_code_point(text.view(), at);
        if (IsOther(c)) return Value(false);
        some = some || Is(c);
    }
    return Value(some);
}

Value isidentifier(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("isidentifier", {});
    for (std::size_t at = 0; at < text.size();) {
        const bool first = at == 0;
        const char32_t c = next_code_point(text.view(), at);
        if (c != '_' && !is_letter(c) && (first || !is_digit(c))) return Value(false);
    }
    return Value(!text.empty());
}

constexpr std::pair<std::string_view, TextMethod> kMethods[] = {{"strip", strip},
                                                                {"lstrip", lstrip},
                                                                {"rstrip", rstrip},
                                                                {"split", split},
                                                                {"rsplit", rsplit},
                                                                {"startswith", startswith},
                                                                {"endswith", endswith},
                                                                {"replace", replace},
                                                                {"upper", cased<Case::upper>},
                                                                {"lower", cased<Case::lower>},
                                                                {"casefold", cased<Case::lower>},
                                                                {"capitalize", cased<Case::capital>},
                                                                {"title", title},
                                                                {"swapcase", swapcase},
                                                                {"join", join},
                                                                {"format", format},
                                                                {"find", find<false, false>},
                                                                {"rfind", find<true, false>},
                                                                {"index", find<false, true>},
                                                                {"rindex", find<true, true>},
                                                                {"count", count},
                                                                {"removeprefix", removeprefix},
                                                                {"removesuffix", removesuffix},
                                                                {"partition", partition},
                                                                {"rpartition", rpartition},
                                                                {"splitlines", splitlines},
                                                                {"ljust", justified<Ends::right>},
                                                                {"rjust", justified<Ends::left>},
                                                                {"center", justified<Ends::both>},
                                                                {"zfill", zfill},
                                                                {"expandtabs", expandtabs},
                                                                {"isalpha", all_are<is_letter>},
                                                                {"isdigit", all_are<is_digit>},
                                                                {"isdecimal", all_are<is_digit>},
                                                                {"isnumeric", all_are<is_digit>},
                                                                {"isalnum", all_are<is_letter_or_digit>},
                                                                {"isspace", all_are<is_space>},
                                                                {"isascii", isascii},
                                                                {"isupper", one_case<is_upper, is_lower>},
                                                                {"islower", one_case<is_lower, is_upper>},
                                                                {"isidentifier", isidentifier}};

}  // namespace

TextMethod find_text_method(std::string_view name) {
    for (const auto& [known, method] : kMethods)
        if (known == name) return method;
    return nullptr;
}

Text stripped(const Text& text, const Value* characters, Ends ends) {
    const std::string_view set = characters != nullptr ? text_of(*characters, "strip").view() : std::string_view();
    const std::string_view* wanted = characters != nullptr ? &set : nullptr;
    const std::size_t end = ends == Ends::left ? text.size() : right_of_text(text.view(), wanted);
    const std::size_t begin = ends == Ends::right ? 0 : left_of_text(text.view().substr(0, end), wanted);
    return text.slice(begin, end);
}

Text replaced(const Text& text, const Text& old, const Text& fresh, std::int64_t count, Meter& meter) {
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
            else if (to == Case::capital && first)
                append_title(part, c);
            else
                append_lower(part, c);
        }
        out.append(part, origin);
    });
    return out;
}

std::vector<Text> lines_of(const Text& text) {
    std::vector<Text> lines;
    std::size_t begin = 0;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t here = at;
        const char32_t c = next_code_point(text.view(), at);
        const bool ends =
            (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (!ends) continue;
        lines.push_back(text.slice(begin, here));
        if (c == '\r' && at < text.size() && text.view()[at] == '\n') ++at;
        begin = at;
    }
    if (begin < text.size()) lines.push_back(text.slice(begin, text.size()));
    return lines;
}

Text padded(const Text& text, std::int64_t width, const Text& fill, Ends ends, Meter& meter) {
    const auto missing = width - static_cast<std::int64_t>(code_points(text.view()));
    if (missing <= 0) return text;
    meter.made(static_cast<std::size_t>(missing) * fill.size());
    const std::int64_t left = ends == Ends::left ? missing : ends == Ends::right ? 0 : missing / 2;
    Text out;
    for (std::int64_t i = 0; i < left; ++i) out.append(fill);
    out.append(text);
    for (std::int64_t i = left; i < missing; ++i) out.append(fill);
    return out;
}

Text centered(const Text& text, std::int64_t width, const Text& fill, Meter& meter) {
    // Where one remains, CPython puts it on the left if the width is odd.
    const auto missing = width - static_cast<std::int64_t>(code_points(text.view()));
    const std::int64_t right = missing - missing / 2 - (missing & width & 1);
    return padded(padded(text, width - right, fill, Ends::left, meter), width, fill, Ends::right, meter);
}

}  // namespace outrider::jinja
