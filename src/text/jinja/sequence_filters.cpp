// Filters over lists and dictionaries.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "evaluator.hpp"
#include "filters.hpp"
#include "methods.hpp"
#include "operators.hpp"
#include "tests.hpp"

namespace outrider::jinja {
namespace {

/// Python's sorted(key=...), whose key for text is in lower case where `case_sensitive` is false.
Value folded(const Value& value, bool case_sensitive, Meter& meter) {
    if (case_sensitive || value.string() == nullptr) return value;
    meter.made(value.string()->text.size());
    return Value(in_case(value.string()->text, Case::lower));
}

/// What a path like "function.name" or 0 leads to; a value's own self without one.
Value along(Evaluator& run, Value value, const Value* path, const Value* otherwise = nullptr) {
    if (path == nullptr || path->is_none()) return value;
    if (path->string() == nullptr) return run.item(value, *path);
    std::string_view left = path->string()->text.view();
    for (bool more = true; more;) {
        const std::size_t dot = left.find('.');
        const std::string_view part = left.substr(0, dot);
        more = dot != std::string_view::npos;
        if (more) left.remove_prefix(dot + 1);
        std::int64_t index = 0;
        const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
        const bool number =
            !part.empty() && part[0] != '-' && read.ec == std::errc() && read.ptr == part.data() + part.size();
        value = run.item(value, number ? Value(index) : Value(Text(std::string(part))));
        if (otherwise != nullptr && value.is_undefined()) value = *otherwise;
    }
    return value;
}

Value made(std::vector<Value> items, Series kind, Meter& meter) {
    meter.made(items.size() * sizeof(Value));
    return Value::list(std::move(items), kind);
}

/// Sorted by keys. Python's sort is stable, in reverse order too.
std::vector<Value> sorted(const std::vector<Value>& items, const std::vector<Value>& keys, bool reverse, Meter& meter) {
    std::vector<std::size_t> order(items.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
        const int c = compare(keys[a], keys[b], meter);
        return reverse ? c > 0 : c < 0;
    });
    std::vector<Value> result;
    for (const std::size_t i : order) result.push_back(items[i]);
    return result;
}

Value or_default(Evaluator&, const Value& input, Arguments& arguments) {
    arguments.bind("default", {"default_value", "boolean"});
    const bool absent = input.is_undefined() || (arguments.flag(1, false) && !is_true(input));
    if (!absent) return input;
    return arguments[0] != nullptr ? *arguments[0] : Value(Text());
}

Value length(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("length", {});
    return Value(static_cast<std::int64_t>(length_of(input, run.meter())));
}

Value list(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("list", {});
    return Value::list(items_of(input, run.meter()));
}

Value first(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("first", {});
    const std::vector<Value> items = items_of(input, run.meter());
    return items.empty() ? Value::undefined("first: the sequence is empty") : items.front();
}

Value last(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("last", {});
    require(input.list() == nullptr || input.list()->kind != Series::generator, "last: a generator has no last item");
    const std::vector<Value> items = items_of(input, run.meter());
    return items.empty() ? Value::undefined("last: the sequence is empty") : items.back();
}

Value join(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("join", {"d", "attribute"});
    Meter& meter = run.meter();
    const Text between = arguments[0] != nullptr ? printed(*arguments[0], meter) : Text();
    Text out;
    bool begun = false;
    for (const Value& item : items_of(input, meter)) {
        if (begun) out.append(between);
        append_printed(out, along(run, item, arguments[1]), meter);
        meter.made(between.size());
        begun = true;
    }
    return Value(std::move(out));
}

Value items(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("items", {});
    if (input.is_undefined()) return Value::list({}, Series::generator);
    require(input.dict() != nullptr, "items: a value of the type {}, expected a dict", type_name(input));
    std::vector<Value> pairs;
    for (const auto& [key, value] : input.dict()->entries()) pairs.push_back(Value::list({key, value}, Series::tuple));
    run.meter().made(pairs.size() * sizeof(List));
    return made(std::move(pairs), Series::generator, run.meter());
}

Value dictsort(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("dictsort", {"case_sensitive", "by", "reverse"});
    require(input.dict() != nullptr, "dictsort: a value of the type {}, expected a dict", type_name(input));
    const Text by = arguments[1] != nullptr ? printed(*arguments[1], run.meter()) : Text("key");
    require(by.view() == "key" || by.view() == "value", "dictsort: by '{}', expected key or value", by.view());
    std::vector<Value> pairs, keys;
    for (const auto& [key, value] : input.dict()->entries()) {
        pairs.push_back(Value::list({key, value}, Series::tuple));
        keys.push_back(folded(by.view() == "key" ? key : value, arguments.flag(0, false), run.meter()));
    }
    run.meter().made(pairs.size() * sizeof(List));
    return made(sorted(pairs, keys, arguments.flag(2, false), run.meter()), Series::list, run.meter());
}

Value sort(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("sort", {"reverse", "case_sensitive", "attribute"});
    const std::vector<Value> all = items_of(input, run.meter());
    // Several paths with commas between them are compared one after the other.
    std::vector<Value> paths(1, arguments[2] != nullptr ? *arguments[2] : Value(None{}));
    if (paths[0].string() != nullptr) {
        Arguments comma;
        comma.placed.emplace_back(Text(","));
        paths = find_text_method("split")(run, paths[0].string()->text, comma).list()->items;
    }
    std::vector<Value> keys;
    for (const Value& item : all) {
        std::vector<Value> key;
        for (const Value& path : paths)
            key.push_back(folded(along(run, item, &path), arguments.flag(1, false), run.meter()));
        keys.push_back(Value::list(std::move(key)));
    }
    return made(sorted(all, keys, arguments.flag(0, false), run.meter()), Series::list, run.meter());
}

Value unique(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("unique", {"case_sensitive", "attribute"});
    std::vector<Value> result, seen;
    for (const Value& item : items_of(input, run.meter())) {
        const Value key = folded(along(run, item, arguments[1]), arguments.flag(0, false), run.meter());
        require(hashable(key), "unique: a value of the type {}, which Python cannot hash", type_name(key));
        if (std::ranges::any_of(seen, [&](const Value& other) { return equal(other, key, run.meter()); })) continue;
        seen.push_back(key);
        result.push_back(item);
    }
    return made(std::move(result), Series::generator, run.meter());
}

template <bool Least>
Value extreme(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("min", {"case_sensitive", "attribute"});
    const std::vector<Value> all = items_of(input, run.meter());
    if (all.empty()) return Value::undefined("min and max: the sequence is empty");
    std::size_t best = 0;
    const auto key = [&](std::size_t i) {
        return folded(along(run, all[i], arguments[1]), arguments.flag(0, false), run.meter());
    };
    for (std::size_t i = 1; i < all.size(); ++i) {
        const int c = compare(key(i), key(best), run.meter());
        if (Least ? c < 0 : c > 0) best = i;
    }
    return all[best];
}

Value sum(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("sum", {"attribute", "start"});
    Value total = arguments[1] != nullptr ? *arguments[1] : Value(std::int64_t{0});
    for (const Value& item : items_of(input, run.meter()))
        total = operate(BinaryKind::add, total, along(run, item, arguments[0]), run.meter());
    return total;
}

Value reverse(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("reverse", {});
    if (input.string() != nullptr)
        return sliced(input, Value(None{}), Value(None{}), Value(std::int64_t{-1}), run.meter());
    std::vector<Value> all = items_of(input, run.meter());
    std::ranges::reverse(all);
    return made(std::move(all), Series::generator, run.meter());
}

/// What map and select go through: nothing for whatever is false, none among them.
std::vector<Value> items_if_true(const Value& input, Meter& meter) {
    return is_true(input) ? items_of(input, meter) : std::vector<Value>();
}

Value map(Evaluator& run, const Value& input, Arguments& arguments) {
    std::vector<Value> result;
    if (arguments.placed.empty()) {
        arguments.bind("map", {"attribute", "default"});
        const Value path = arguments.needed(0, "map");
        const Value* otherwise = arguments[1] != nullptr && !arguments[1]->is_none() ? arguments[1] : nullptr;
        for (const Value& item : items_if_true(input, run.meter()))
            result.push_back(along(run, item, &path, otherwise));
        return made(std::move(result), Series::generator, run.meter());
    }
    const Value name = arguments.take_first("map");
    const FilterFunction filter = find_filter(text_of(name, "map").view());
    require(filter != nullptr, "map: there is no filter '{}'", name.string()->text.view());
    for (const Value& item : items_if_true(input, run.meter())) {
        Arguments own = arguments;
        result.push_back(filter(run, item, own));
    }
    return made(std::move(result), Series::generator, run.meter());
}

/// Items, or attributes of items, that pass a test; truth where none is named.
template <bool Kept, bool Attribute>
Value select(Evaluator& run, const Value& input, Arguments& arguments) {
    Value path{None{}};
    if constexpr (Attribute) path = arguments.take_first("selectattr");
    TestFunction test = nullptr;
    if (!arguments.placed.empty()) {
        const Value name = arguments.take_first("select");
        test = find_test(text_of(name, "select").view());
        require(test != nullptr, "select: there is no test '{}'", name.string()->text.view());
    }
    std::vector<Value> result;
    for (const Value& item : items_if_true(input, run.meter())) {
        Arguments own = arguments;
        const Value tested = along(run, item, &path);
        if ((test != nullptr ? test(run, tested, own) : is_true(tested)) == Kept) result.push_back(item);
    }
    return made(std::move(result), Series::generator, run.meter());
}

Value batch(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("batch", {"linecount", "fill_with"});
    const std::int64_t count = integer_of(arguments.needed(0, "batch"), "batch");
    require(count > 0 && count <= 1'000'000, "batch: {} items a line", count);
    std::vector<Value> lines, line;
    for (const Value& item : items_of(input, run.meter())) {
        if (std::ssize(line) == count) lines.push_back(Value::list(std::exchange(line, {})));
        line.push_back(item);
    }
    if (!line.empty()) {
        if (arguments[1] != nullptr && !arguments[1]->is_none()) {
            run.meter().made(static_cast<std::size_t>(count) * sizeof(Value));
            line.resize(static_cast<std::size_t>(count), *arguments[1]);
        }
        lines.push_back(Value::list(std::move(line)));
    }
    return made(std::move(lines), Series::generator, run.meter());
}

Value slice(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("slice", {"slices", "fill_with"});
    const std::vector<Value> all = items_of(input, run.meter());
    const std::int64_t count = integer_of(arguments.needed(0, "slice"), "slice");
    require(count > 0 && count <= 100'000, "slice: {} slices", count);
    const auto slices = static_cast<std::size_t>(count);
    run.meter().made(slices, sizeof(List) + sizeof(Value));
    std::vector<Value> result;
    std::size_t at = 0;
    for (std::size_t i = 0; i < slices; ++i) {
        const std::size_t extra = all.size() % slices, size = all.size() / slices + (i < extra ? 1 : 0);
        std::vector<Value> part(all.begin() + static_cast<std::ptrdiff_t>(at),
                                all.begin() + static_cast<std::ptrdiff_t>(at + size));
        if (arguments[1] != nullptr && !arguments[1]->is_none() && i >= extra) part.push_back(*arguments[1]);
        result.push_back(Value::list(std::move(part)));
        at += size;
    }
    return made(std::move(result), Series::generator, run.meter());
}

Value attr(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("attr", {"name"});
    const std::string_view name = text_of(arguments.needed(0, "attr"), "attr").view();
    if (input.dict() != nullptr && !has_method(input, name))
        return Value::undefined("dict has no attribute '{1}'", "", std::make_shared<const std::string>(name));
    return run.attribute(input, std::make_shared<const std::string>(name));
}

constexpr std::pair<std::string_view, FilterFunction> kFilters[] = {{"default", or_default},
                                                                    {"d", or_default},
                                                                    {"length", length},
                                                                    {"count", length},
                                                                    {"list", list},
                                                                    {"first", first},
                                                                    {"last", last},
                                                                    {"join", join},
                                                                    {"items", items},
                                                                    {"dictsort", dictsort},
                                                                    {"sort", sort},
                                                                    {"unique", unique},
                                                                    {"min", extreme<true>},
                                                                    {"max", extreme<false>},
                                                                    {"sum", sum},
                                                                    {"reverse", reverse},
                                                                    {"map", map},
                                                                    {"select", select<true, false>},
                                                                    {"reject", select<false, false>},
                                                                    {"selectattr", select<true, true>},
                                                                    {"rejectattr", select<false, true>},
                                                                    {"batch", batch},
                                                                    {"slice", slice},
                                                                    {"attr", attr}};

}  // namespace

FilterFunction find_sequence_filter(std::string_view name) {
    for (const auto& [known, filter] : kFilters)
        if (known == name) return filter;
    return nullptr;
}

}  // namespace outrider::jinja
