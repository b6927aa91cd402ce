// Expressions and calls.
#include <fmt/format.h>

#include <algorithm>

#include "evaluator.hpp"
#include "filters.hpp"
#include "methods.hpp"
#include "operators.hpp"

namespace outrider::jinja {
namespace {

constexpr std::size_t kLongestDate = 10'000;     ///< bytes of a date's format
constexpr std::int64_t kLongestRange = 100'000;  ///< the sandbox's own limit

[[noreturn]] void complain_undefined(const Undefined& undefined) { fail("{}", undefined.message()); }

using Words = std::shared_ptr<const std::string>;

/// A name that outlives the run: without an owner.
Words lasting(const std::string& name) { return Words(Words(), &name); }

/// A key or index, for messages.
Words shown_key(const Value& key) {
    if (const auto* string = std::get_if<std::shared_ptr<const String>>(&key.held()))
        return Words(*string, &(*string)->text.bytes());
    return std::make_shared<const std::string>(key.is_integer() ? fmt::format("{}", key.integer()) : type_name(key));
}

Value make_range(Arguments& arguments, Meter& meter) {
    arguments.bind("range", {"start", "stop", "step"});
    const bool one = arguments[1] == nullptr;
    const std::int64_t first = integer_of(arguments.needed(0, "range"), "range");
    const std::int64_t begin = one ? 0 : first, end = one ? first : arguments.integer(1, 0, "range");
    const std::int64_t step = arguments.integer(2, 1, "range");
    require(step != 0, "range: a step of 0");
    std::vector<Value> items;
    for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
        items.emplace_back(i);
        require(std::ssize(items) <= kLongestRange, "range: more than {} numbers", kLongestRange);
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    meter.step(items.size() / 2);
    return Value::list(std::move(items), Series::range);
}

Value make_dict(Arguments& arguments, Meter& meter) {
    auto dict = std::make_shared<Dict>();
    require(arguments.placed.size() <= 1, "dict: {} arguments, expected at most one", arguments.placed.size());
    if (!arguments.placed.empty()) {
        if (const Dict* other = arguments.placed[0].dict()) {
            for (const auto& [key, value] : other->entries()) dict->set(key, value, meter);
        } else {
            for (const Value& pair : items_of(arguments.placed[0], meter)) {
                const std::vector<Value> both = items_of(pair, meter);
                require(both.size() == 2, "dict: an item of {} values, expected a key and a value", both.size());
                dict->set(both[0], both[1], meter);
            }
        }
    }
    for (const auto& [name, value] : arguments.named) dict->set(Value(Text(name)), value, meter);
    return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

}  // namespace

Value Evaluator::evaluate(const Expression& expression) {
    const Meter::Level level(meter_);
    meter_.step();
    return std::visit([this](const auto& node) { return value(node); }, expression.node);
}

Value Evaluator::value(const Name& node) {
    for (const Frame* frame = frame_; frame != nullptr; frame = frame->parent) {
        for (const auto& [name, held] : frame->values)
            if (name == node.name) return held;
        meter_.step(frame->values.size() / 16);
    }
    switch (node.name) {
        case kRange: return Builtin::range;
        case kDict: return Builtin::dict;
        case kNamespace: return Builtin::make_namespace;
        case kRaiseException: return Builtin::raise_exception;
        case kStrftimeNow: return Builtin::strftime_now;
        default:
            return Value::undefined("'{1}' is undefined", "",
                                    lasting(program_.names[static_cast<std::size_t>(node.name)]));
    }
}

Value Evaluator::value(const Attribute& node) { return attribute(evaluate(*node.object), lasting(node.name)); }
Value Evaluator::value(const Item& node) {
    const Value object = evaluate(*node.object);
    return item(object, evaluate(*node.key));
}

Value Evaluator::value(const Slice& node) {
    const Value object = evaluate(*node.object);
    const auto end = [this](const ExpressionPtr& part) { return part ? evaluate(*part) : Value(None{}); };
    const Value begin = end(node.begin), stop = end(node.end), step = end(node.step);
    return sliced(object, begin, stop, step, meter_);
}

Value Evaluator::attribute(const Value& object, const Words& words) {
    const std::string& name = *words;
    if (const auto* undefined = std::get_if<Undefined>(&object.held())) complain_undefined(*undefined);
    if (has_method(object, name))
        return Value(std::make_shared<const Method>(Method{std::make_shared<const Value>(object), name}));
    if (refused_method(object, name))
        return Value::undefined("the method '{1}' of {0} changes its object, which templates may not",
                                type_name(object), words);
    if (const Dict* dict = object.dict()) {
        meter_.step(1 + dict->entries().size() / 8);
        if (const Value* found = dict->find(name)) return *found;
    } else if (object.is<Namespace*>()) {
        const Namespace& space = *std::get<Namespace*>(object.held());
        meter_.step(space.values.size() / 8);
        if (const Value* found = space.find(name)) return *found;
    } else if (object.is<Loop*>()) {
        return loop_attribute(*std::get<Loop*>(object.held()), words);
    }
    return Value::undefined("a value of the type {0} has no attribute '{1}'", type_name(object), words);
}

Value Evaluator::item(const Value& object, const Value& key) {
    if (const auto* undefined = std::get_if<Undefined>(&object.held())) complain_undefined(*undefined);
    if (const Dict* dict = object.dict()) {
        if (hashable(key))
            if (const Value* found = dict->find(key, meter_)) return *found;
        if (const String* name = key.string(); name != nullptr && has_method(object, name->text.view()))
            return attribute(object, shown_key(key));
        return Value::undefined("a dict has no key '{1}'", "", shown_key(key));
    }
    if (key.string() != nullptr) return attribute(object, shown_key(key));
    const List* list = object.list();
    const bool indexed =
        object.string() != nullptr ||
        (list != nullptr && (list->kind == Series::list || list->kind == Series::tuple || list->kind == Series::range));
    if (indexed && key.is_integer()) {
        const auto length = static_cast<std::int64_t>(length_of(object, meter_));
        const std::int64_t index = key.integer() < 0 ? key.integer() + length : key.integer();
        if (index >= 0 && index < length) {
            if (list != nullptr) return list->items[static_cast<std::size_t>(index)];
            return sliced(object, Value(index), Value(index + 1), Value(None{}), meter_);
        }
    }
    return Value::undefined("a value of the type {0} has no item {1}", type_name(object), shown_key(key));
}

Value Evaluator::loop_attribute(const Loop& loop, const Words& words) {
    const std::string& name = *words;
    const auto index = static_cast<std::int64_t>(loop.index), count = static_cast<std::int64_t>(loop.items.size());
    if (name == "index0") return Value(index);
    if (name == "index") return Value(index + 1);
    if (name == "revindex0") return Value(count - index - 1);
    if (name == "revindex") return Value(count - index);
    if (name == "first") return Value(index == 0);
    if (name == "last") return Value(index + 1 == count);
    if (name == "length") return Value(count);
    if (name == "depth") return Value(std::int64_t{1});
    if (name == "depth0") return Value(std::int64_t{0});
    if (name == "previtem")
        return index > 0 ? loop.items[loop.index - 1] : Value::undefined("there is no previous item");
    if (name == "nextitem")
        return index + 1 < count ? loop.items[loop.index + 1] : Value::undefined("there is no next item");
    return Value::undefined("loop has no attribute '{1}'", "", words);
}

Value Evaluator::value(const Call& node) {
    if (const auto* attribute_node = std::get_if<Attribute>(&node.callee->node)) {
        const Value object = evaluate(*attribute_node->object);  // a method: no value is made of it
        if (has_method(object, attribute_node->name)) {
            Arguments arguments = arguments_of(node.arguments);
            return call_method(*this, object, attribute_node->name, arguments);
        }
        const Value callee = attribute(object, lasting(attribute_node->name));
        Arguments arguments = arguments_of(node.arguments);
        return call(callee, arguments);
    }
    const Value callee = evaluate(*node.callee);
    Arguments arguments = arguments_of(node.arguments);
    return call(callee, arguments);
}

Value Evaluator::call(const Value& callee, Arguments& arguments) {
    if (const Method* method = callee.method()) return call_method(*this, *method->object, method->name, arguments);
    if (const auto* macro = std::get_if<Macro>(&callee.held())) return call_macro(*macro, arguments);
    if (const auto* builtin = std::get_if<Builtin>(&callee.held())) return call_builtin(*builtin, arguments);
    if (const auto* undefined = std::get_if<Undefined>(&callee.held())) complain_undefined(*undefined);
    fail("a value of the type {} is called, which is no function", type_name(callee));
}

Value Evaluator::call_builtin(Builtin builtin, Arguments& arguments) {
    switch (builtin) {
        case Builtin::range: return make_range(arguments, meter_);
        case Builtin::dict: return make_dict(arguments, meter_);
        case Builtin::make_namespace: {
            const Value values = make_dict(arguments, meter_);
            meter_.made(sizeof(Namespace));
            Namespace& space = namespaces_.emplace_back();
            for (const auto& [key, value] : values.dict()->entries()) {
                const std::string_view name = text_of(key, "namespace").view();
                require(!name.starts_with('_'), "namespace: names do not begin with an underscore, as '{}' does", name);
                meter_.step(space.values.size() / 8);
                space.set(name, value);
            }
            return Value(&space);
        }
        case Builtin::raise_exception: {
            arguments.bind("raise_exception", {"message"});
            fail("the template refuses the conversation: {}",
                 printed(arguments.needed(0, "raise_exception"), meter_).view());
        }
        case Builtin::strftime_now: {
            arguments.bind("strftime_now", {"format"});
            const Text& form = text_of(arguments.needed(0, "strftime_now"), "strftime_now");
            require(form.size() <= kLongestDate, "strftime_now: a format of {} bytes", form.size());
            Text date(date_(form.bytes()));
            meter_.made(date.size());
            return Value(std::move(date));
        }
    }
    return Value();
}

Arguments Evaluator::arguments_of(const CallArguments& given) {
    Arguments result;
    result.placed.reserve(given.placed.size());
    for (const ExpressionPtr& part : given.placed) result.placed.push_back(evaluate(*part));
    for (const auto& [name, part] : given.named) result.named.emplace_back(name, evaluate(*part));
    if (given.more) {
        std::vector<Value> more = items_of(evaluate(*given.more), meter_);
        std::ranges::move(more, std::back_inserter(result.placed));
    }
    if (given.more_named) {
        const Value more = evaluate(*given.more_named);
        require(more.dict() != nullptr, "** before a value of the type {}, expected a dict", type_name(more));
        for (const auto& [key, value] : more.dict()->entries())
            result.named.emplace_back(text_of(key, "the name of an argument").bytes(), value);
    }
    return result;
}

Value Evaluator::filtered(const FilterUse& filter, const Value& input) {
    require(filter.function != nullptr, "there is no filter '{}'", filter.name);
    Arguments arguments = arguments_of(filter.arguments);
    return filter.function(*this, input, arguments);
}

Value Evaluator::value(const Filtered& node) { return filtered(node.filter, evaluate(*node.input)); }

Value Evaluator::value(const Test& node) {
    require(node.function != nullptr, "there is no test '{}'", node.name);
    const Value input = evaluate(*node.input);
    Arguments arguments = arguments_of(node.arguments);
    return Value(node.function(*this, input, arguments));
}

Value Evaluator::value(const Unary& node) { return operate(node.kind, evaluate(*node.operand)); }

Value Evaluator::value(const Binary& node) {
    const Value left = evaluate(*node.left);
    return operate(node.kind, left, evaluate(*node.right), meter_);
}

Value Evaluator::value(const Logic& node) {
    Value left = evaluate(*node.left);
    return is_true(left) == node.conjunction ? evaluate(*node.right) : left;
}

Value Evaluator::value(const Comparison& node) {
    Value left = evaluate(*node.first);
    for (const auto& [kind, operand] : node.rest) {
        Value right = evaluate(*operand);
        if (!compare(kind, left, right, meter_)) return Value(false);
        left = std::move(right);
    }
    return Value(true);
}

Value Evaluator::value(const Concatenation& node) {
    Text text;
    for (const ExpressionPtr& part : node.parts) append_printed(text, evaluate(*part), meter_);
    return Value(std::move(text));
}

Value Evaluator::value(const Choice& node) {
    if (is_true(evaluate(*node.condition))) return evaluate(*node.yes);
    return node.no ? evaluate(*node.no) : Value::undefined("an inline if without else, whose condition is false");
}

Value Evaluator::value(const Sequence& node) {
    std::vector<Value> items;
    items.reserve(node.items.size());
    for (const ExpressionPtr& part : node.items) items.push_back(evaluate(*part));
    meter_.made(items.size() * sizeof(Value));
    return Value::list(std::move(items), node.kind);
}

Value Evaluator::value(const Mapping& node) {
    auto dict = std::make_shared<Dict>();
    for (const auto& [key, part] : node.entries) {
        Value name = evaluate(*key);
        dict->set(std::move(name), evaluate(*part), meter_);
    }
    return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

}  // namespace outrider::jinja
