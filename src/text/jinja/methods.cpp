// Methods of dictionaries, lists and the loop variable, and which methods there are.
#include "methods.hpp"

#include <algorithm>

#include "evaluator.hpp"

namespace outrider::jinja {
namespace {

using DictMethod = Value (*)(Evaluator& run, const Dict& dict, Arguments& arguments);

template <typename Take>
Value view(const Dict& dict, Arguments& arguments, Meter& meter, Series kind, Take&& take) {
    arguments.bind("a view of a dict", {});
    meter.made(dict.entries().size() * sizeof(Value));
    std::vector<Value> items;
    for (const auto& entry : dict.entries()) items.push_back(take(entry));
    return Value::list(std::move(items), kind);
}

Value get(Evaluator& run, const Dict& dict, Arguments& arguments) {
    arguments.bind("get", {"key", "default"});
    const Value& key = arguments.needed(0, "get");
    require(key.dict() == nullptr, "get: a key of the type dict, which Python cannot hash");
    const Value* found = dict.find(key, run.meter());
    if (found == nullptr) found = arguments[1];
    return found != nullptr ? *found : Value(None{});
}

Value keys(Evaluator& run, const Dict& dict, Arguments& arguments) {
    return view(dict, arguments, run.meter(), Series::keys, [](const auto& entry) { return entry.first; });
}
Value values(Evaluator& run, const Dict& dict, Arguments& arguments) {
    return view(dict, arguments, run.meter(), Series::values, [](const auto& entry) { return entry.second; });
}
Value items(Evaluator& run, const Dict& dict, Arguments& arguments) {
    run.meter().made(dict.entries().size() * (sizeof(List) + 2 * sizeof(Value)));
    return view(dict, arguments, run.meter(), Series::items,
                [](const auto& entry) { return Value::list({entry.first, entry.second}, Series::tuple); });
}
Value copy(Evaluator& run, const Dict& dict, Arguments& arguments) {
    arguments.bind("copy", {});
    run.meter().made(dict.entries().size() * 2 * sizeof(Value));
    return Value(std::make_shared<const Dict>(dict));
}

constexpr std::pair<std::string_view, DictMethod> kDictMethods[] = {
    {"get", get}, {"items", items}, {"keys", keys}, {"values", values}, {"copy", copy}};

DictMethod find_dict_method(std::string_view name) {
    for (const auto& [known, method] : kDictMethods)
        if (known == name) return method;
    return nullptr;
}

/// list.count and list.index; tuples have them too.
Value call_list_method(Evaluator& run, const List& list, std::string_view name, Arguments& arguments) {
    Meter& meter = run.meter();
    if (name == "copy") {
        arguments.bind("copy", {});
        meter.made(list.items.size() * sizeof(Value));
        return Value::list(list.items, list.kind);
    }
    arguments.bind(name, {"value"});
    const Value& wanted = arguments.needed(0, name);
    std::int64_t count = 0;
    for (std::size_t i = 0; i < list.items.size(); ++i) {
        if (!equal(list.items[i], wanted, meter)) continue;
        if (name == "index") return Value(static_cast<std::int64_t>(i));
        ++count;
    }
    require(name == "count", "index: the list has no such value");
    return Value(count);
}

bool has_list_method(const List& list, std::string_view name) {
    if (list.kind != Series::list && list.kind != Series::tuple && list.kind != Series::range) return false;
    return name == "count" || name == "index" || (name == "copy" && list.kind == Series::list);
}

Value call_loop_method(Loop& loop, std::string_view name, Arguments& arguments, Meter& meter) {
    require(arguments.named.empty(), "loop.{}: there are no named arguments", name);
    if (name == "cycle") {
        require(!arguments.placed.empty(), "loop.cycle: an argument is missing");
        return arguments.placed[loop.index % arguments.placed.size()];
    }
    bool same = loop.seen.size() == arguments.placed.size() && loop.changed_before;
    for (std::size_t i = 0; same && i < loop.seen.size(); ++i) same = equal(loop.seen[i], arguments.placed[i], meter);
    loop.seen = arguments.placed;
    loop.changed_before = true;
    return Value(!same);
}

}  // namespace

bool has_method(const Value& object, std::string_view name) {
    if (object.string() != nullptr) return find_text_method(name) != nullptr;
    if (object.dict() != nullptr) return find_dict_method(name) != nullptr;
    if (const List* list = object.list()) return has_list_method(*list, name);
    return object.is<Loop*>() && (name == "cycle" || name == "changed");
}

bool refused_method(const Value& object, std::string_view name) {
    constexpr std::string_view kOfDicts[] = {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"};
    constexpr std::string_view kOfLists[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};
    if (object.dict() != nullptr) return std::ranges::find(kOfDicts, name) != std::end(kOfDicts);
    const List* list = object.list();
    return list != nullptr && list->kind == Series::list && std::ranges::find(kOfLists, name) != std::end(kOfLists);
}

Value call_method(Evaluator& run, const Value& object, std::string_view name, Arguments& arguments) {
    if (const String* string = object.string()) {
        run.meter().read(string->text.size());
        if (name.starts_with("is")) run.meter().step(string->text.size() / 8);  // each character is looked up
        Value result = find_text_method(name)(run, string->text, arguments);
        if (result.string() != nullptr) run.meter().made(result.string()->text.size());
        // Methods of markup make markup.
        if (string->markup && result.string() != nullptr) return Value(result.string()->text, true);
        return result;
    }
    if (const Dict* dict = object.dict()) return find_dict_method(name)(run, *dict, arguments);
    if (const List* list = object.list()) return call_list_method(run, *list, name, arguments);
    return call_loop_method(*std::get<Loop*>(object.held()), name, arguments, run.meter());
}

}  // namespace outrider::jinja
