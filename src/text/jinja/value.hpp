// The values of a template: Python's, as far as chat templates use them. All but namespaces are immutable, as the
// sandbox of `transformers` has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "meter.hpp"
#include "text.hpp"

namespace outrider::jinja {

class Value;
class Dict;
struct Frame;
struct Loop;
struct MacroNode;
struct Namespace;

/// What a missing name, key or index gives: prints as nothing and is false; most uses are errors that say what is
/// missing. Templates ask for what is missing all the time, so the words are made when they are needed.
struct Undefined {
    struct Missing {
        const char* form;  ///< with {0} for the type and {1} for the name
        const char* type;
        std::shared_ptr<const std::string> name;
    };
    std::shared_ptr<const Missing> what;

    [[nodiscard]] std::string message() const;
};

struct None {};

struct String {
    Text text;
    bool markup = false;  ///< made by the filters safe and escape: `+` escapes what is added to it
};

/// Python's kinds of sequences. Views and generators have no indices, generators no length and one pass.
enum class Series { list, tuple, range, generator, keys, values, items };

struct List {
    Series kind = Series::list;
    std::vector<Value> items;
    std::size_t depth = 1;
    mutable bool spent = false;  ///< a generator that was walked through
};

/// A method together with its object: message.get
struct Method {
    std::shared_ptr<const Value> object;
    std::string name;
};

/// A macro or the body of a call block, with the scope that it was written in.
struct Macro {
    const MacroNode* node;
    Frame* scope;
};

enum class Builtin { range, dict, make_namespace, raise_exception, strftime_now };

class Value {
public:
    using Held = std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const String>,
                              std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace*, Loop*, Macro,
                              std::shared_ptr<const Method>, Builtin>;

    Value() = default;
    Value(None) : held_(None{}) {}
    Value(Undefined undefined) : held_(std::move(undefined)) {}
    Value(bool value) : held_(value) {}
    Value(std::int64_t value) : held_(value) {}
    Value(double value) : held_(value) {}
    Value(Text text, bool markup = false) : held_(std::make_shared<const String>(String{std::move(text), markup})) {}
    Value(std::shared_ptr<const List> list) : held_(std::move(list)) {}
    Value(std::shared_ptr<const Dict> dict) : held_(std::move(dict)) {}
    Value(Namespace* space) : held_(space) {}
    Value(Loop* loop) : held_(loop) {}
    Value(Macro macro) : held_(macro) {}
    Value(std::shared_ptr<const Method> method) : held_(std::move(method)) {}
    Value(Builtin builtin) : held_(builtin) {}
    Value(const void*) = delete;

    /// `form`: with {0} for `type` and {1} for `name`; both literals.
    [[nodiscard]] static Value undefined(const char* form, const char* type = "",
                                         std::shared_ptr<const std::string> name = {});

    /// Throws Error when it is nested too deep.
    [[nodiscard]] static Value list(std::vector<Value> items, Series kind = Series::list);

    template <typename T>
    [[nodiscard]] bool is() const {
        return std::holds_alternative<T>(held_);
    }
    [[nodiscard]] bool is_undefined() const { return is<Undefined>(); }
    [[nodiscard]] bool is_none() const { return is<None>(); }
    [[nodiscard]] bool is_integer() const { return is<std::int64_t>() || is<bool>(); }
    [[nodiscard]] bool is_number() const { return is_integer() || is<double>(); }

    /// Null when it is something else.
    [[nodiscard]] const String* string() const { return pointed<String>(); }
    [[nodiscard]] const List* list() const { return pointed<List>(); }
    [[nodiscard]] const Dict* dict() const { return pointed<Dict>(); }
    [[nodiscard]] const Method* method() const { return pointed<Method>(); }

    /// Of a number; true counts as 1.
    [[nodiscard]] std::int64_t integer() const {
        return is<bool>() ? std::int64_t{std::get<bool>(held_)} : std::get<std::int64_t>(held_);
    }
    [[nodiscard]] double number() const {
        return is<double>() ? std::get<double>(held_) : static_cast<double>(integer());
    }

    [[nodiscard]] const Held& held() const { return held_; }

private:
    template <typename T>
    [[nodiscard]] const T* pointed() const {
        const auto* found = std::get_if<std::shared_ptr<const T>>(&held_);
        return found != nullptr ? found->get() : nullptr;
    }

    Held held_;
};

/// Keys in the order in which they came.
class Dict {
public:
    /// A later value of the same key takes the place of the earlier one. Throws Error for a key that Python cannot
    /// hash.
    void set(Value key, Value value, Meter& meter);

    [[nodiscard]] const Value* find(std::string_view key) const;
    [[nodiscard]] const Value* find(const Value& key, Meter& meter) const;
    [[nodiscard]] const std::vector<std::pair<Value, Value>>& entries() const noexcept { return entries_; }
    [[nodiscard]] std::size_t depth() const noexcept { return depth_; }

private:
    std::vector<std::pair<Value, Value>> entries_;
    std::size_t depth_ = 1;
};

/// What a template can write to. Lives as long as the run.
struct Namespace {
    std::vector<std::pair<std::string, Value>> values;

    [[nodiscard]] const Value* find(std::string_view name) const;
    void set(std::string_view name, Value value);
};

/// The variable `loop` of a for statement. Lives as long as the run.
struct Loop {
    std::vector<Value> items;
    std::size_t index = 0;    ///< from 0
    std::vector<Value> seen;  ///< of loop.changed
    bool changed_before = false;
};

/// Deepest nesting of lists and dictionaries.
inline constexpr std::size_t kDeepestValue = 200;
[[nodiscard]] std::size_t depth_of(const Value& value);

/// Python's type name, for messages.
[[nodiscard]] const char* type_name(const Value& value);

[[nodiscard]] bool is_true(const Value& value);
[[nodiscard]] bool equal(const Value& a, const Value& b, Meter& meter);

/// Whether Python takes it for a key.
[[nodiscard]] bool hashable(const Value& key);

/// Below 0, 0 or above 0. Throws Error for values that Python does not order.
[[nodiscard]] int compare(const Value& a, const Value& b, Meter& meter);

/// `needle in haystack`. Throws Error for what holds nothing.
[[nodiscard]] bool contains(const Value& haystack, const Value& needle, Meter& meter);

/// Throws Error for what has no length.
[[nodiscard]] std::size_t length_of(const Value& value, Meter& meter);

/// What a for statement goes through: items, characters, keys. Throws Error for what cannot be gone through.
[[nodiscard]] std::vector<Value> items_of(const Value& value, Meter& meter);

/// str() and repr() of Python.
[[nodiscard]] Text printed(const Value& value, Meter& meter);
void append_printed(Text& out, const Value& value, Meter& meter);
void append_repr(Text& out, const Value& value, Meter& meter);
[[nodiscard]] std::string printed_number(double value);

/// json.dumps. Lines are broken where `indent` is there. Throws Error for what JSON cannot say.
struct JsonStyle {
    const Text* indent = nullptr;
    Text item = Text(", "), key = Text(": ");
    bool ascii = false, sorted = false;
};
[[nodiscard]] Text to_json(const Value& value, const JsonStyle& style, Meter& meter);

/// The text of a string. `what` names the place in the message. Throws Error for another value.
[[nodiscard]] const Text& text_of(const Value& value, std::string_view what);
[[nodiscard]] std::int64_t integer_of(const Value& value, std::string_view what);

}  // namespace outrider::jinja
