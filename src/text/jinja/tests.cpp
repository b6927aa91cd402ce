#include "tests.hpp"

#include <cmath>

#include "arguments.hpp"
#include "evaluator.hpp"
#include "filters.hpp"
#include "methods.hpp"
#include "operators.hpp"

namespace outrider::jinja {
namespace {

/// A test of the value alone.
template <bool (*Is)(const Value&)>
bool plain(Evaluator&, const Value& input, Arguments& arguments) {
    arguments.bind("a test without arguments", {});
    return Is(input);
}

template <CompareKind Kind>
bool compared(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("a test that compares", {"other"});
    return compare(Kind, input, arguments.needed(0, "a test that compares"), run.meter());
}

bool is_defined(const Value& value) { return !value.is_undefined(); }
bool is_not_defined(const Value& value) { return value.is_undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.is<bool>(); }
bool is_just_true(const Value& value) { return value.is<bool>() && is_true(value); }
bool is_just_false(const Value& value) { return value.is<bool>() && !is_true(value); }
bool is_whole(const Value& value) { return value.is<std::int64_t>(); }
bool is_real(const Value& value) { return value.is<double>(); }
bool is_any_number(const Value& value) { return value.is_number(); }
bool is_string(const Value& value) { return value.string() != nullptr; }
bool is_mapping(const Value& value) { return value.dict() != nullptr; }
bool is_escaped(const Value& value) { return value.string() != nullptr && value.string()->markup; }

bool is_iterable(const Value& value) {
    return value.string() != nullptr || value.list() != nullptr || value.dict() != nullptr || value.is_undefined() ||
           value.is<Loop*>();
}

bool is_sequence(const Value& value) {
    const List* list = value.list();
    if (list != nullptr)
        return list->kind == Series::list || list->kind == Series::tuple || list->kind == Series::range;
    return value.string() != nullptr || value.dict() != nullptr || value.is_undefined();
}

bool is_callable(const Value& value) {
    return value.is<Macro>() || value.method() != nullptr || value.is<Builtin>() || value.is<Loop*>() ||
           value.is_undefined();
}

bool is_lower_text(Evaluator& run, const Value& input, Arguments&) {
    Arguments none;
    return is_true(find_text_method("islower")(run, printed(input, run.meter()), none));
}
bool is_upper_text(Evaluator& run, const Value& input, Arguments&) {
    Arguments none;
    return is_true(find_text_method("isupper")(run, printed(input, run.meter()), none));
}

bool remainder_is(Evaluator& run, const Value& input, const Value& by, std::int64_t rest) {
    return equal(operate(BinaryKind::modulo, input, by, run.meter()), Value(rest), run.meter());
}
bool is_odd(Evaluator& run, const Value& input, Arguments&) {
    return remainder_is(run, input, Value(std::int64_t{2}), 1);
}
bool is_even(Evaluator& run, const Value& input, Arguments&) {
    return remainder_is(run, input, Value(std::int64_t{2}), 0);
}
bool divisible(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("divisibleby", {"num"});
    return remainder_is(run, input, arguments.needed(0, "divisibleby"), 0);
}

/// Python's `is`: the same object. Of values that have no identity here, equal ones of one type.
bool same_as(Evaluator& run, const Value& input, Arguments& arguments) {
    arguments.bind("sameas", {"other"});
    const Value& other = arguments.needed(0, "sameas");
    if (input.held().index() != other.held().index()) return false;
    if (input.list() != nullptr) return input.list() == other.list();
    if (input.dict() != nullptr) return input.dict() == other.dict();
    return equal(input, other, run.meter());
}

template <bool Filters>
bool is_known(Evaluator&, const Value& input, Arguments&) {
    require(hashable(input), "a test for the name of a filter or test with a value of the type {}", type_name(input));
    if (input.string() == nullptr) return false;
    const std::string_view name = input.string()->text.view();
    return Filters ? find_filter(name) != nullptr : find_test(name) != nullptr;
}

constexpr std::pair<std::string_view, TestFunction> kTests[] = {{"defined", plain<is_defined>},
                                                                {"undefined", plain<is_not_defined>},
                                                                {"none", plain<is_none>},
                                                                {"boolean", plain<is_boolean>},
                                                                {"true", plain<is_just_true>},
                                                                {"false", plain<is_just_false>},
                                                                {"integer", plain<is_whole>},
                                                                {"float", plain<is_real>},
                                                                {"number", plain<is_any_number>},
                                                                {"string", plain<is_string>},
                                                                {"mapping", plain<is_mapping>},
                                                                {"sequence", plain<is_sequence>},
                                                                {"iterable", plain<is_iterable>},
                                                                {"callable", plain<is_callable>},
                                                                {"escaped", plain<is_escaped>},
                                                                {"lower", is_lower_text},
                                                                {"upper", is_upper_text},
                                                                {"odd", is_odd},
                                                                {"even", is_even},
                                                                {"divisibleby", divisible},
                                                                {"sameas", same_as},
                                                                {"in", compared<CompareKind::in>},
                                                                {"eq", compared<CompareKind::equal>},
                                                                {"==", compared<CompareKind::equal>},
                                                                {"equalto", compared<CompareKind::equal>},
                                                                {"ne", compared<CompareKind::unequal>},
                                                                {"!=", compared<CompareKind::unequal>},
                                                                {"lt", compared<CompareKind::less>},
                                                                {"<", compared<CompareKind::less>},
                                                                {"lessthan", compared<CompareKind::less>},
                                                                {"le", compared<CompareKind::at_most>},
                                                                {"<=", compared<CompareKind::at_most>},
                                                                {"gt", compared<CompareKind::greater>},
                                                                {">", compared<CompareKind::greater>},
                                                                {"greaterthan", compared<CompareKind::greater>},
                                                                {"ge", compared<CompareKind::at_least>},
                                                                {">=", compared<CompareKind::at_least>},
                                                                {"filter", is_known<true>},
                                                                {"test", is_known<false>}};

}  // namespace

TestFunction find_test(std::string_view name) {
    for (const auto& [known, test] : kTests)
        if (known == name) return test;
    return nullptr;
}

}  // namespace outrider::jinja
