#include "value.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "unicode.hpp"

namespace outrider::jinja {
namespace {

template <typename... F>
struct Overloaded : F... {
    using F::operator()...;
};

bool same_series(Series a, Series b) { return a == b && a != Series::generator && a != Series::values; }

bool equal_lists(const List& a, const List& b, Meter& meter) {
    if (&a == &b) return true;
    if (!same_series(a.kind, b.kind) || a.items.size() != b.items.size()) return false;
    for (std::size_t i = 0; i < a.items.size(); ++i)
        if (!equal(a.items[i], b.items[i], meter)) return false;
    return true;
}

bool equal_dicts(const Dict& a, const Dict& b, Meter& meter) {
    if (&a == &b) return true;
    if (a.entries().size() != b.entries().size()) return false;
    return std::ranges::all_of(a.entries(), [&](const auto& entry) {
        const Value* other = b.find(entry.first, meter);
        return other != nullptr && equal(entry.second, *other, meter);
    });
}

constexpr std::size_t kLongestShown = 80;  ///< characters of a name in a message

int order(auto a, auto b) { return a < b ? -1 : b < a ? 1 : 0; }

}  // namespace

Value Value::undefined(const char* form, const char* type, std::shared_ptr<const std::string> name) {
    return Undefined{std::make_shared<const Undefined::Missing>(Undefined::Missing{form, type, std::move(name)})};
}

std::string Undefined::message() const {
    if (!what) return "an undefined value is used";
    std::string name = what->name ? *what->name : std::string();
    if (name.size() > kLongestShown) name = name.substr(0, byte_of(name, kLongestShown)) + "...";
    return fmt::format(fmt::runtime(what->form), what->type, name);
}

bool hashable(const Value& key) {
    if (key.dict() != nullptr) return false;
    const List* list = key.list();
    return list == nullptr || list->kind == Series::range ||
           (list->kind == Series::tuple && std::ranges::all_of(list->items, hashable));
}

Value Value::list(std::vector<Value> items, Series kind) {
    auto list = std::make_shared<List>();
    list->kind = kind;
    for (const Value& item : items) list->depth = std::max(list->depth, depth_of(item) + 1);
    require(list->depth <= kDeepestValue, "lists nested deeper than {} levels", kDeepestValue);
    list->items = std::move(items);
    return std::shared_ptr<const List>(std::move(list));
}

void Dict::set(Value key, Value value, Meter& meter) {
    require(hashable(key), "a key of the type {}, which Python cannot hash", type_name(key));
    depth_ = std::max({depth_, depth_of(key) + 1, depth_of(value) + 1});
    require(depth_ <= kDeepestValue, "dictionaries nested deeper than {} levels", kDeepestValue);
    if (const Value* old = find(key, meter)) {
        entries_[static_cast<std::size_t>(
                     std::ranges::find_if(entries_, [&](const auto& e) { return &e.second == old; }) -
                     entries_.begin())]
            .second = std::move(value);
        return;
    }
    meter.made(2 * sizeof(Value));
    entries_.emplace_back(std::move(key), std::move(value));
}

const Value* Dict::find(std::string_view key) const {
    for (const auto& [name, value] : entries_) {
        const String* string = name.string();
        if (string != nullptr && string->text.view() == key) return &value;
    }
    return nullptr;
}

const Value* Dict::find(const Value& key, Meter& meter) const {
    meter.step(1 + entries_.size() / 8);
    if (const String* string = key.string()) {
        meter.step(string->text.size() / 64 * entries_.size());
        return find(string->text.view());
    }
    for (const auto& [name, value] : entries_)
        if (equal(name, key, meter)) return &value;
    return nullptr;
}

const Value* Namespace::find(std::string_view name) const {
    const auto found = std::ranges::find(values, name, &std::pair<std::string, Value>::first);
    return found != values.end() ? &found->second : nullptr;
}

void Namespace::set(std::string_view name, Value value) {
    const auto found = std::ranges::find(values, name, &std::pair<std::string, Value>::first);
    if (found != values.end())
        found->second = std::move(value);
    else
        values.emplace_back(name, std::move(value));
}

std::size_t depth_of(const Value& value) {
    if (const List* list = value.list()) return list->depth;
    if (const Dict* dict = value.dict()) return dict->depth();
    if (const Method* method = value.method()) return depth_of(*method->object) + 1;
    return 0;
}

const char* type_name(const Value& value) {
    if (const List* list = value.list()) {
        constexpr const char* kNames[] = {"list",      "tuple",       "range",     "generator",
                                          "dict_keys", "dict_values", "dict_items"};
        return kNames[static_cast<std::size_t>(list->kind)];
    }
    return std::visit(
        Overloaded{[](const Undefined&) { return "undefined"; }, [](None) { return "None"; },
                   [](bool) { return "bool"; }, [](std::int64_t) { return "int"; }, [](double) { return "float"; },
                   [](const std::shared_ptr<const String>&) { return "str"; },
                   [](const std::shared_ptr<const List>&) { return "list"; },
                   [](const std::shared_ptr<const Dict>&) { return "dict"; }, [](Namespace*) { return "namespace"; },
                   [](Loop*) { return "loop"; }, [](Macro) { return "macro"; },
                   [](const std::shared_ptr<const Method>&) { return "method"; }, [](Builtin) { return "function"; }},
        value.held());
}

bool is_true(const Value& value) {
    return std::visit(
        Overloaded{
            [](const Undefined&) { return false; }, [](None) { return false; }, [](bool b) { return b; },
            [](std::int64_t i) { return i != 0; }, [](double d) { return d != 0; },
            [](const std::shared_ptr<const String>& s) { return !s->text.empty(); },
            [](const std::shared_ptr<const List>& l) { return l->kind == Series::generator || !l->items.empty(); },
            [](const std::shared_ptr<const Dict>& d) { return !d->entries().empty(); },
            [](const auto&) { return true; }},
        value.held());
}

bool equal(const Value& a, const Value& b, Meter& meter) {
    meter.step();
    if (a.is_number() && b.is_number())
        return a.is_integer() && b.is_integer() ? a.integer() == b.integer() : a.number() == b.number();
    if (a.held().index() != b.held().index()) return false;
    if (const String* string = a.string()) {
        if (string->text.size() != b.string()->text.size()) return false;
        meter.read(string->text.size());
        return string->text.view() == b.string()->text.view();
    }
    if (const List* list = a.list()) return equal_lists(*list, *b.list(), meter);
    if (const Dict* dict = a.dict()) return equal_dicts(*dict, *b.dict(), meter);
    return std::visit(Overloaded{[](const Undefined&) { return true; }, [](None) { return true; },
                                 [&](Namespace* space) { return space == std::get<Namespace*>(b.held()); },
                                 [&](Loop* loop) { return loop == std::get<Loop*>(b.held()); },
                                 [&](const Macro& macro) {
                                     const auto& other = std::get<Macro>(b.held());
                                     return macro.node == other.node && macro.scope == other.scope;
                                 },
                                 [&](Builtin builtin) { return builtin == std::get<Builtin>(b.held()); },
                                 [](const auto&) { return false; }},
                      a.held());
}

int compare(const Value& a, const Value& b, Meter& meter) {
    meter.step();
    if (a.is_number() && b.is_number())
        return a.is_integer() && b.is_integer() ? order(a.integer(), b.integer()) : order(a.number(), b.number());
    // Bytes of UTF-8 are in the order of code points.
    if (a.string() != nullptr && b.string() != nullptr) {
        meter.read(std::min(a.string()->text.size(), b.string()->text.size()));
        return order(a.string()->text.view(), b.string()->text.view());
    }
    const List *left = a.list(), *right = b.list();
    if (left != nullptr && right != nullptr && left->kind == right->kind &&
        (left->kind == Series::list || left->kind == Series::tuple)) {
        for (std::size_t i = 0; i < std::min(left->items.size(), right->items.size()); ++i)
            if (!equal(left->items[i], right->items[i], meter)) return compare(left->items[i], right->items[i], meter);
        return order(left->items.size(), right->items.size());
    }
    for (const Value* value : {&a, &b})
        if (const auto* undefined = std::get_if<Undefined>(&value->held())) fail("{}", undefined->message());
    fail("{} and {} have no order", type_name(a), type_name(b));
}

bool contains(const Value& haystack, const Value& needle, Meter& meter) {
    if (const String* string = haystack.string()) {
        const std::string_view wanted = text_of(needle, "the left side of `in` before a string").view();
        meter.search(string->text.size(), wanted.size());
        return string->text.view().find(wanted) != std::string_view::npos;
    }
    if (const Dict* dict = haystack.dict()) {
        require(hashable(needle), "a key of the type {}, which Python cannot hash", type_name(needle));
        return dict->find(needle, meter) != nullptr;
    }
    if (const List* list = haystack.list(); list != nullptr && list->kind != Series::generator)
        return std::ranges::any_of(list->items, [&](const Value& item) { return equal(item, needle, meter); });
    const std::vector<Value> items = items_of(haystack, meter);
    return std::ranges::any_of(items, [&](const Value& item) { return equal(item, needle, meter); });
}

std::size_t length_of(const Value& value, Meter& meter) {
    if (const String* string = value.string()) {
        meter.read(string->text.size());
        return code_points(string->text.view());
    }
    if (const Dict* dict = value.dict()) return dict->entries().size();
    if (const List* list = value.list(); list != nullptr && list->kind != Series::generator) return list->items.size();
    if (value.is_undefined()) return 0;
    if (value.is<Loop*>()) return std::get<Loop*>(value.held())->items.size();
    fail("a value of the type {} has no length", type_name(value));
}

std::vector<Value> items_of(const Value& value, Meter& meter) {
    if (const List* list = value.list()) {
        if (list->spent) return {};
        list->spent = list->kind == Series::generator;
        meter.made(list->items.size() * sizeof(Value));
        return list->items;
    }
    std::vector<Value> items;
    if (const Dict* dict = value.dict()) {
        meter.made(dict->entries().size() * sizeof(Value));
        for (const auto& [key, entry] : dict->entries()) items.push_back(key);
        return items;
    }
    if (const String* string = value.string()) {
        meter.made(string->text.size() * (sizeof(Value) + sizeof(String)));
        for (std::size_t at = 0; at < string->text.size();) {
            const std::size_t begin = at;
            (void)next_code_point(string->text.view(), at);
            items.emplace_back(string->text.slice(begin, at));
        }
        return items;
    }
    require(value.is_undefined(), "a value of the type {} cannot be gone through", type_name(value));
    return items;
}

const Text& text_of(const Value& value, std::string_view what) {
    const String* string = value.string();
    if (string != nullptr) return string->text;
    if (const auto* undefined = std::get_if<Undefined>(&value.held()); undefined != nullptr && undefined->what)
        fail("{}: {}", what, undefined->message());
    fail("{}: a value of the type {}, expected a string", what, type_name(value));
}

std::int64_t integer_of(const Value& value, std::string_view what) {
    require(value.is_integer(), "{}: a value of the type {}, expected an integer", what, type_name(value));
    return value.integer();
}

}  // namespace outrider::jinja
