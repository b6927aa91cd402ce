// Python's operators over values, and its two ways to put values into a text.
#pragma once

#include "arguments.hpp"
#include "nodes.hpp"

namespace outrider::jinja {

/// Throws Error for values that the operator does not take.
[[nodiscard]] Value operate(BinaryKind kind, const Value& left, const Value& right, Meter& meter);
[[nodiscard]] Value operate(UnaryKind kind, const Value& operand);
[[nodiscard]] bool compare(CompareKind kind, const Value& left, const Value& right, Meter& meter);

/// `text % values` of Python: %s %r %d %i %f %x %% with width and precision.
[[nodiscard]] Text format_by_percent(const Text& pattern, const Value& values, Meter& meter);

/// pattern.format(...) of Python: {}, {0}, {name}, {name.key}, {name[key]}, !r, and width, precision and kind after a
/// colon.
[[nodiscard]] Text format_by_braces(Evaluator& run, const Text& pattern, const Arguments& arguments);

/// Part of a text by index or slice. `step` is not 0; ends as Python counts them, already within the text.
[[nodiscard]] Value sliced(const Value& object, const Value& begin, const Value& end, const Value& step, Meter& meter);

}  // namespace outrider::jinja
