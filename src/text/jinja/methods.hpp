// The methods of Python's str, dict and list that do not change their object.
#pragma once

#include <string_view>

#include "arguments.hpp"
#include "value.hpp"

namespace outrider::jinja {

class Evaluator;

/// Whether `object` has such a method. Those that change it count as absent: the sandbox of transformers refuses them.
[[nodiscard]] bool has_method(const Value& object, std::string_view name);

/// True for methods that the sandbox refuses (append, pop, update).
[[nodiscard]] bool refused_method(const Value& object, std::string_view name);

/// has_method is true.
[[nodiscard]] Value call_method(Evaluator& run, const Value& object, std::string_view name, Arguments& arguments);

/// The methods of strings (text_methods.cpp).
using TextMethod = Value (*)(Evaluator& run, const Text& text, Arguments& arguments);
[[nodiscard]] TextMethod find_text_method(std::string_view name);

// What filters do to texts as well (text_changes.cpp).

/// A text without characters at its ends: white space, or those of `characters`.
enum class Ends { left, right, both };
[[nodiscard]] Text stripped(const Text& text, const Value* characters, Ends ends, Meter& meter);

/// All `old` replaced, at most `count` (below 0: all).
[[nodiscard]] Text replaced(const Text& text, const Text& old, const Text& fresh, std::int64_t count, Meter& meter);

/// str.upper, str.lower, str.casefold, str.capitalize.
enum class Case { upper, lower, folded, capital };
[[nodiscard]] Text in_case(const Text& text, Case to);

/// Lines of a text as str.splitlines cuts it, with their line breaks or without.
[[nodiscard]] std::vector<Text> lines_of(const Text& text, Meter& meter, bool with_ends = false);

/// Adds spaces (or `fill`) on both sides until there are `width` characters.
[[nodiscard]] Text padded(const Text& text, std::int64_t width, const Text& fill, Ends ends, Meter& meter);

/// str.center.
[[nodiscard]] Text centered(const Text& text, std::int64_t width, const Text& fill, Meter& meter);

}  // namespace outrider::jinja
