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

template <Ends Where>
Value strip(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("strip", {"chars"});
    return Value(stripped(text, optional_argument(arguments, 0), Where, run.meter()));
}

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

/// The byte behind the last white space; 0 when there is none.
std::size_t last_word(std::string_view text) {
    for (std::size_t end = text.size(); end > 0;) {
        std::size_t begin = end - 1;
        while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
        std::size_t at = begin;
        const bool space = is_space(next_code_point(text, at));
        if (at == end && space) return end;
        end = at == end ? begin : end - 1;
    }
    return 0;
}

std::size_t first_space(std::string_view text) {
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t here = at;
        if (is_space(next_code_point(text, at))) return here;
    }
    return text.size();
}

/// Parts of a text as values, each counted before it is made.
class Parts {
public:
    Parts(const Text& text, Meter& meter) : text_(text), meter_(meter) {}

    void add(std::size_t begin, std::size_t end) {
        meter_.made(sizeof(Value) + sizeof(String) + end - begin);
        values_.emplace_back(text_.slice(begin, end));
    }

    [[nodiscard]] std::int64_t count() const { return std::ssize(values_); }
    [[nodiscard]] std::vector<Value> take(bool from_right) {
        if (from_right) std::ranges::reverse(values_);
        return std::move(values_);
    }

private:
    const Text& text_;
    Meter& meter_;
    std::vector<Value> values_;
};

/// Words between white space, from the left or the right.
std::vector<Value> words_of(const Text& text, std::int64_t most, bool from_right, Meter& meter) {
    Parts words(text, meter);
    std::size_t begin = 0, end = text.size();
    const auto left = [&] { return text.view().substr(begin, end - begin); };
    while (begin < end) {
        if (from_right)
            end = begin + right_of_text(left());
        else
            begin += left_of_text(left());
        if (begin == end) break;
        if (most >= 0 && words.count() == most) {
            words.add(begin, end);
            break;
        }
        const std::size_t cut = begin + (from_right ? last_word(left()) : first_space(left()));
        if (from_right)
            words.add(cut, end), end = cut;
        else
            words.add(begin, cut), begin = cut;
    }
    return words.take(from_right);
}

std::vector<Value> parts_of(const Text& text, std::string_view between, std::int64_t most, bool from_right,
                            Meter& meter) {
    meter.search(text.size(), between.size());
    Parts parts(text, meter);
    std::size_t begin = 0, end = text.size();
    while (most < 0 || parts.count() < most) {
        const std::string_view left = text.view().substr(begin, end - begin);
        const std::size_t found = from_right ? left.rfind(between) : left.find(between);
        if (found == std::string_view::npos) break;
        if (from_right)
            parts.add(begin + found + between.size(), end), end = begin + found;
        else
            parts.add(begin, begin + found), begin += found + between.size();
    }
    parts.add(begin, end);
    return parts.take(from_right);
}

Value split_with(Evaluator& run, const Text& text, Arguments& arguments, bool from_right) {
    arguments.bind("split", {"sep", "maxsplit"});
    const std::int64_t most = arguments.integer(1, -1, "split");
    const Value* between = optional_argument(arguments, 0);
    if (between == nullptr) return Value::list(words_of(text, most, from_right, run.meter()));
    const Text& sign = text_of(*between, "split");
    require(!sign.empty(), "split: an empty separator");
    return Value::list(parts_of(text, sign.view(), most, from_right, run.meter()));
}
Value split(Evaluator& run, const Text& text, Arguments& arguments) { return split_with(run, text, arguments, false); }
Value rsplit(Evaluator& run, const Text& text, Arguments& arguments) { return split_with(run, text, arguments, true); }

template <bool FromRight>
Value partition(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("partition", {"sep"});
    const Text& sign = text_argument(arguments, 0, "partition");
    require(!sign.empty(), "partition: an empty separator");
    run.meter().search(text.size(), sign.size());
    run.meter().made(text.size());
    const std::size_t found = FromRight ? text.view().rfind(sign.view()) : text.view().find(sign.view());
    if (found == std::string_view::npos) {
        const Value all(text), none{Text()};
        return Value::list(FromRight ? std::vector<Value>{none, none, all} : std::vector<Value>{all, none, none},
                           Series::tuple);
    }
    return Value::list({Value(text.slice(0, found)), Value(text.slice(found, found + sign.size())),
                        Value(text.slice(found + sign.size(), text.size()))},
                       Series::tuple);
}

Value splitlines(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("splitlines", {"keepends"});
    std::vector<Value> lines;
    for (Text& line : lines_of(text, run.meter(), arguments.flag(0, false))) lines.emplace_back(std::move(line));
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
std::optional<std::int64_t> found_at(const Text& text, const Arguments& arguments, bool last, std::string_view callee,
                                     Meter& meter) {
    const std::string_view wanted = text_argument(arguments, 0, callee).view();
    meter.search(text.size(), wanted.size());
    const auto [begin, end] = part_of(text, arguments, 1, callee);
    if (begin > end) return std::nullopt;
    const std::string_view part = text.view().substr(begin, end - begin);
    const std::size_t found = last ? part.rfind(wanted) : part.find(wanted);
    if (found == std::string_view::npos) return std::nullopt;
    return static_cast<std::int64_t>(code_points(text.view().substr(0, begin + found)));
}

template <bool Last, bool Must>
Value find(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("find", {"sub", "start", "end"});
    const auto found = found_at(text, arguments, Last, "find", run.meter());
    require(found || !Must, "index: the text has no '{}'", arguments[0]->string()->text.view());
    return Value(found.value_or(-1));
}

Value count(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("count", {"sub", "start", "end"});
    const std::string_view wanted = text_argument(arguments, 0, "count").view();
    run.meter().search(text.size(), wanted.size());
    const auto [begin, end] = part_of(text, arguments, 1, "count");
    if (begin > end) return Value(std::int64_t{0});
    const std::string_view part = text.view().substr(begin, end - begin);
    if (wanted.empty()) return Value(static_cast<std::int64_t>(code_points(part) + 1));
    std::int64_t times = 0;
    for (std::size_t at = part.find(wanted); at != std::string_view::npos; at = part.find(wanted, at + wanted.size()))
        ++times;
    return Value(times);
}

/// Below 0 is the same as 0.
std::int64_t width_of(const Value& value) { return std::max<std::int64_t>(integer_of(value, "width"), 0); }

template <Ends Where>
Value justified(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("a method of width", {"width", "fillchar"});
    const Text space(" ");
    const Text& fill = arguments[1] != nullptr ? text_of(*arguments[1], "fillchar") : space;
    require(code_points(fill.view()) == 1, "a fill of {} characters, expected one", code_points(fill.view()));
    const std::int64_t width = width_of(arguments.needed(0, "a method of width"));
    return Value(Where == Ends::both ? centered(text, width, fill, run.meter())
                                     : padded(text, width, fill, Where, run.meter()));
}

Value zfill(Evaluator& run, const Text& text, Arguments& arguments) {
    arguments.bind("zfill", {"width"});
    const bool sign = text.view().starts_with('-') || text.view().starts_with('+');
    Text out = text.slice(0, sign ? 1 : 0);
    const std::int64_t width = width_of(arguments.needed(0, "zfill")) - (sign ? 1 : 0);
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

/// Capitals behind what has no case, small letters behind letters, and some of them.
Value istitle(Evaluator&, const Text& text, Arguments& arguments) {
    arguments.bind("istitle", {});
    bool some = false, behind_letter = false;
    for (std::size_t at = 0; at < text.size();) {
        const char32_t c = next_code_point(text.view(), at);
        const bool capital = is_upper(c), small = is_lower(c);
        if ((capital && behind_letter) || (small && !behind_letter)) return Value(false);
        behind_letter = capital || small;
        some = some || behind_letter;
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

constexpr std::pair<std::string_view, TextMethod> kMethods[] = {{"strip", strip<Ends::both>},
                                                                {"lstrip", strip<Ends::left>},
                                                                {"rstrip", strip<Ends::right>},
                                                                {"split", split},
                                                                {"rsplit", rsplit},
                                                                {"startswith", startswith},
                                                                {"endswith", endswith},
                                                                {"replace", replace},
                                                                {"upper", cased<Case::upper>},
                                                                {"lower", cased<Case::lower>},
                                                                {"casefold", cased<Case::folded>},
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
                                                                {"partition", partition<false>},
                                                                {"rpartition", partition<true>},
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
                                                                {"istitle", istitle},
                                                                {"isidentifier", isidentifier}};

}  // namespace

TextMethod find_text_method(std::string_view name) {
    for (const auto& [known, method] : kMethods)
        if (known == name) return method;
    return nullptr;
}

}  // namespace outrider::jinja
