// A template's parts after parsing; immutable. Names are numbers, so that scopes compare no strings.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "value.hpp"

namespace outrider::jinja {

class Evaluator;
class Arguments;
struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;
using FilterFunction = Value (*)(Evaluator&, const Value& input, Arguments& arguments);
using TestFunction = bool (*)(Evaluator&, const Value& input, Arguments& arguments);

struct CallArguments {
    std::vector<ExpressionPtr> placed;
    std::vector<std::pair<std::string, ExpressionPtr>> named;
    ExpressionPtr more, more_named;  ///< after * and **
};

struct FilterUse {
    std::string name;
    FilterFunction function = nullptr;  ///< null: there is none of the name, which is an error when it is run
    CallArguments arguments;
};

struct Literal {
    Value value;
};
struct Name {
    int name;
};
struct Attribute {
    ExpressionPtr object;
    std::string name;
};
struct Item {
    ExpressionPtr object, key;
};
struct Slice {
    ExpressionPtr object, begin, end, step;
};  ///< null: left out
struct Call {
    ExpressionPtr callee;
    CallArguments arguments;
};
struct Filtered {
    ExpressionPtr input;
    FilterUse filter;
};
struct Test {
    ExpressionPtr input;
    std::string name;
    TestFunction function;
    CallArguments arguments;
};
enum class UnaryKind { plus, minus, negation };
struct Unary {
    UnaryKind kind;
    ExpressionPtr operand;
};
enum class BinaryKind { add, subtract, multiply, divide, floor_divide, modulo, power };
struct Binary {
    BinaryKind kind;
    ExpressionPtr left, right;
};
struct Logic {
    bool conjunction;
    ExpressionPtr left, right;
};
enum class CompareKind { equal, unequal, less, at_most, greater, at_least, in, not_in };
struct Comparison {
    ExpressionPtr first;
    std::vector<std::pair<CompareKind, ExpressionPtr>> rest;
};
struct Concatenation {
    std::vector<ExpressionPtr> parts;
};
struct Choice {
    ExpressionPtr condition, yes, no;
};  ///< `no` null: undefined
struct Sequence {
    Series kind;
    std::vector<ExpressionPtr> items;
};
struct Mapping {
    std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};

struct Expression {
    using Node = std::variant<Literal, Name, Attribute, Item, Slice, Call, Filtered, Test, Unary, Binary, Logic,
                              Comparison, Concatenation, Choice, Sequence, Mapping>;
    Node node;
    int line = 0;
    std::size_t height = 1;  ///< nesting, which the parser limits
};

struct Statement;
using Body = std::vector<Statement>;

/// What a for or set statement writes to: a name, a namespace's attribute, or several of them.
struct Target {
    int name = -1;
    std::string attribute = {};        ///< of the namespace `name`; empty: the name itself
    std::vector<Target> several = {};  ///< instead, when not empty
};

struct MacroNode {
    std::string name;
    std::vector<int> parameters;
    std::vector<ExpressionPtr> defaults;  ///< of the last parameters
    Body body;
    bool takes_caller = false, takes_more = false, takes_named = false;  ///< mentions caller, varargs, kwargs
};

struct Plain {
    Value text;
};
struct Print {
    ExpressionPtr value;
};
struct If {
    std::vector<std::pair<ExpressionPtr, Body>> branches;
    Body otherwise;
};
struct For {
    Target target;
    ExpressionPtr items, condition;
    Body body, otherwise;
};
struct Set {
    Target target;
    ExpressionPtr value;
};
struct SetBlock {
    Target target;
    std::vector<FilterUse> filters;
    Body body;
};
struct MacroStatement {
    int name;
    std::unique_ptr<const MacroNode> macro;
};
struct CallBlock {
    ExpressionPtr call;
    std::unique_ptr<const MacroNode> caller;
};
struct FilterBlock {
    std::vector<FilterUse> filters;
    Body body;
};
struct With {
    std::vector<std::pair<Target, ExpressionPtr>> values;
    Body body;
};  ///< without values: a scope
struct Break {};
struct Continue {};

struct Statement {
    using Node = std::variant<Plain, Print, If, For, Set, SetBlock, MacroStatement, CallBlock, FilterBlock, With, Break,
                              Continue>;
    Node node;
    int line = 0;
};

/// Names that mean something to the interpreter, in the order of their numbers.
enum KnownName : int {
    kLoop,
    kCaller,
    kVarargs,
    kKwargs,
    kRange,
    kDict,
    kNamespace,
    kRaiseException,
    kStrftimeNow,
    kKnownNames
};
inline constexpr const char* kKnownNameTexts[] = {"loop", "caller",    "varargs",         "kwargs",      "range",
                                                  "dict", "namespace", "raise_exception", "strftime_now"};

struct Program {
    std::vector<std::string> names;  ///< by number
    Body body;
};

/// Throws Error naming the line.
[[nodiscard]] Program parse(std::string_view source);

}  // namespace outrider::jinja
