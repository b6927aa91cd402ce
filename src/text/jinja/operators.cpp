#include "operators.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "filters.hpp"
#include "unicode.hpp"

namespace outrider::jinja {
namespace {

[[noreturn]] void refuse(const char* sign, const Value& left, const Value& right) {
    for (const Value* value : {&left, &right})
        if (const auto* undefined = std::get_if<Undefined>(&value->held())) fail("{}", undefined->message());
    fail("{} {} {}: there is no such operation", type_name(left), sign, type_name(right));
}

void check_overflow(bool over) { require(!over, "an integer beyond 64 bits"); }

/// What is added to markup becomes markup, so it is escaped first (markupsafe).
Value join_strings(const String& left, const String& right, Meter& meter) {
    Text text = right.markup && !left.markup ? html_escaped(left.text) : left.text;
    text.append(left.markup && !right.markup ? html_escaped(right.text) : right.text);
    meter.made(text.size());
    return Value(std::move(text), left.markup || right.markup);
}

Value join_lists(const List& left, const List& right, Meter& meter) {
    meter.made((left.items.size() + right.items.size()) * sizeof(Value));
    std::vector<Value> items = left.items;
    items.insert(items.end(), right.items.begin(), right.items.end());
    return Value::list(std::move(items), left.kind);
}

Value add(const Value& left, const Value& right, Meter& meter) {
    if (left.is_integer() && right.is_integer()) {
        std::int64_t sum = 0;
        check_overflow(__builtin_add_overflow(left.integer(), right.integer(), &sum));
        return Value(sum);
    }
    if (left.is_number() && right.is_number()) return Value(left.number() + right.number());
    if (left.string() != nullptr && right.string() != nullptr)
        return join_strings(*left.string(), *right.string(), meter);
    const List *a = left.list(), *b = right.list();
    if (a != nullptr && b != nullptr && a->kind == b->kind && (a->kind == Series::list || a->kind == Series::tuple))
        return join_lists(*a, *b, meter);
    refuse("+", left, right);
}

Value subtract(const Value& left, const Value& right) {
    if (left.is_integer() && right.is_integer()) {
        std::int64_t difference = 0;
        check_overflow(__builtin_sub_overflow(left.integer(), right.integer(), &difference));
        return Value(difference);
    }
    if (!left.is_number() || !right.is_number()) refuse("-", left, right);
    return Value(left.number() - right.number());
}

Value repeated(const Value& value, std::int64_t count, Meter& meter) {
    const auto times = static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
    const String* string = value.string();
    const std::size_t size = string != nullptr ? string->text.size() : value.list()->items.size() * sizeof(Value);
    meter.made(times, size);
    if (string != nullptr) {
        Text text;
        for (std::size_t i = 0; i < times && size > 0; ++i) text.append(string->text);
        return Value(std::move(text), string->markup);
    }
    std::vector<Value> items;
    for (std::size_t i = 0; i < times && size > 0; ++i)
        items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
    return Value::list(std::move(items), value.list()->kind);
}

Value multiply(const Value& left, const Value& right, Meter& meter) {
    if (left.is_integer() && right.is_integer()) {
        std::int64_t product = 0;
        check_overflow(__builtin_mul_overflow(left.integer(), right.integer(), &product));
        return Value(product);
    }
    if (left.is_number() && right.is_number()) return Value(left.number() * right.number());
    const auto repeats = [](const Value& value) {
        const List* list = value.list();
        return value.string() != nullptr ||
               (list != nullptr && (list->kind == Series::list || list->kind == Series::tuple));
    };
    if (repeats(left) && right.is_integer()) return repeated(left, right.integer(), meter);
    if (repeats(right) && left.is_integer()) return repeated(right, left.integer(), meter);
    refuse("*", left, right);
}

/// Python's: towards minus infinity.
Value floor_divide(const Value& left, const Value& right, bool remainder) {
    if (!left.is_number() || !right.is_number()) refuse(remainder ? "%" : "//", left, right);
    require(right.number() != 0, "a division by zero");
    if (!left.is_integer() || !right.is_integer()) {
        const double quotient = std::floor(left.number() / right.number());
        if (!remainder) return Value(quotient);
        const double rest = std::fmod(left.number(), right.number());
        return Value(rest != 0 && (rest < 0) != (right.number() < 0) ? rest + right.number() : rest);
    }
    const std::int64_t a = left.integer(), b = right.integer();
    if (b == -1) return remainder ? Value(std::int64_t{0}) : subtract(Value(std::int64_t{0}), left);
    const std::int64_t rest = a % b;
    const bool down = rest != 0 && (rest < 0) != (b < 0);
    return remainder ? Value(down ? rest + b : rest) : Value(down ? a / b - 1 : a / b);
}

Value power(const Value& left, const Value& right) {
    if (!left.is_number() || !right.is_number()) refuse("**", left, right);
    if (!left.is_integer() || !right.is_integer() || right.integer() < 0) {
        require(left.number() != 0 || right.number() >= 0, "zero to a power below zero");
        return Value(std::pow(left.number(), right.number()));
    }
    std::int64_t result = 1, base = left.integer();
    for (std::int64_t exponent = right.integer(); exponent > 0;) {
        bool over = exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result);
        exponent /= 2;
        over = over || (exponent > 0 && __builtin_mul_overflow(base, base, &base));
        check_overflow(over);
    }
    return Value(result);
}

/// A place of a slice as Python clips it: within [low, high].
std::int64_t clipped(const Value& place, std::int64_t otherwise, std::int64_t length, std::int64_t low,
                     std::int64_t high) {
    if (place.is_none()) return otherwise;
    std::int64_t at = integer_of(place, "a slice");
    if (at < 0) at = at < -length ? low : at + length;
    return std::clamp(at, low, high);
}

/// The byte at which each character begins, and the size.
std::vector<std::size_t> character_bytes(std::string_view text) {
    std::vector<std::size_t> places;
    for (std::size_t at = 0; at < text.size();) {
        places.push_back(at);
        (void)next_code_point(text, at);
    }
    places.push_back(text.size());
    return places;
}

}  // namespace

Value operate(BinaryKind kind, const Value& left, const Value& right, Meter& meter) {
    switch (kind) {
        case BinaryKind::add: return add(left, right, meter);
        case BinaryKind::subtract: return subtract(left, right);
        case BinaryKind::multiply: return multiply(left, right, meter);
        case BinaryKind::divide:
            if (!left.is_number() || !right.is_number()) refuse("/", left, right);
            require(right.number() != 0, "a division by zero");
            return Value(left.number() / right.number());
        case BinaryKind::floor_divide: return floor_divide(left, right, false);
        case BinaryKind::modulo:
            if (const String* pattern = left.string()) return Value(format_by_percent(pattern->text, right, meter));
            return floor_divide(left, right, true);
        case BinaryKind::power: return power(left, right);
    }
    return Value();
}

Value operate(UnaryKind kind, const Value& operand) {
    if (kind == UnaryKind::negation) return Value(!is_true(operand));
    if (!operand.is_number()) refuse(kind == UnaryKind::minus ? "-" : "+", Value(None{}), operand);
    if (kind == UnaryKind::plus) return operand.is_integer() ? Value(operand.integer()) : operand;
    if (operand.is_integer()) return subtract(Value(std::int64_t{0}), operand);
    return Value(-operand.number());
}

bool compare(CompareKind kind, const Value& left, const Value& right, Meter& meter) {
    const auto ordered = [&](auto holds) {
        // What is no number (NaN) is below, above and equal to nothing.
        if (left.is_number() && right.is_number() && (std::isnan(left.number()) || std::isnan(right.number())))
            return false;
        return holds(compare(left, right, meter));
    };
    switch (kind) {
        case CompareKind::equal: return equal(left, right, meter);
        case CompareKind::unequal: return !equal(left, right, meter);
        case CompareKind::less: return ordered([](int c) { return c < 0; });
        case CompareKind::at_most: return ordered([](int c) { return c <= 0; });
        case CompareKind::greater: return ordered([](int c) { return c > 0; });
        case CompareKind::at_least: return ordered([](int c) { return c >= 0; });
        case CompareKind::in: return contains(right, left, meter);
        case CompareKind::not_in: return !contains(right, left, meter);
    }
    return false;
}

Value sliced(const Value& object, const Value& begin, const Value& end, const Value& step, Meter& meter) {
    const String* string = object.string();
    const List* list = object.list();
    const bool cuts =
        string != nullptr ||
        (list != nullptr && (list->kind == Series::list || list->kind == Series::tuple || list->kind == Series::range));
    if (object.is_undefined()) refuse("[:]", object, Value(None{}));
    require(cuts, "a value of the type {} has no slices", type_name(object));
    const std::int64_t by = step.is_none() ? 1 : integer_of(step, "a slice");
    require(by != 0, "a slice with a step of 0");
    const auto length = static_cast<std::int64_t>(length_of(object, meter));
    const std::int64_t low = by > 0 ? 0 : -1, high = by > 0 ? length : length - 1;
    const std::int64_t from = clipped(begin, by > 0 ? low : high, length, low, high);
    const std::int64_t to = clipped(end, by > 0 ? high : low, length, low, high);
    if (string != nullptr && by == 1) {
        if (from >= to) return Value(Text(), string->markup);
        const std::size_t first = byte_of(string->text.view(), static_cast<std::size_t>(from));
        const std::size_t last =
            first + byte_of(string->text.view().substr(first), static_cast<std::size_t>(to - from));
        meter.made(last - first);
        return Value(string->text.slice(first, last), string->markup);
    }
    Text text;
    std::vector<Value> items;
    if (string != nullptr) meter.made(string->text.size(), sizeof(std::size_t));
    const std::vector<std::size_t> places =
        string != nullptr ? character_bytes(string->text.view()) : std::vector<std::size_t>();
    for (std::int64_t i = from; by > 0 ? i < to : i > to;) {
        meter.step();
        const auto at = static_cast<std::size_t>(i);
        if (list != nullptr)
            items.push_back(list->items[at]);
        else
            text.append(string->text, places[at], places[at + 1]);
        if (__builtin_add_overflow(i, by, &i)) break;
    }
    meter.made(items.size() * sizeof(Value) + text.size());
    return list != nullptr ? Value::list(std::move(items), list->kind) : Value(std::move(text), string->markup);
}

}  // namespace outrider::jinja
