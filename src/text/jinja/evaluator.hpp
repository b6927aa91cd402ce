// Runs a program: scopes, statements, expressions and calls.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "nodes.hpp"

namespace outrider::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

/// What strftime_now gives for a format, "%d %b %Y".
using DateFormatter = std::function<std::string(const std::string& format)>;

/// The variables of one scope. Kept to the end of the run where a macro may look into it.
struct Frame {
    Frame* parent = nullptr;
    bool kept = false;
    std::vector<std::pair<int, Value>> values;

    void set(int name, Value value);
};

class Evaluator {
public:
    Evaluator(const Program& program, const Limits& limits, const DateFormatter& date);

    /// The text. Throws Error naming the line.
    [[nodiscard]] Text run(const Variables& variables);

    [[nodiscard]] Value evaluate(const Expression& expression);
    [[nodiscard]] Value call(const Value& callee, Arguments& arguments);
    [[nodiscard]] Value filtered(const FilterUse& filter, const Value& input);

    /// object.name and object[key].
    [[nodiscard]] Value attribute(const Value& object, const std::shared_ptr<const std::string>& name);
    [[nodiscard]] Value item(const Value& object, const Value& key);

    [[nodiscard]] Meter& meter() noexcept { return meter_; }

private:
    enum class Flow { on, next, leave };  ///< on: to the next statement; next, leave: of the innermost for statement

    /// A new scope within `parent` while it lives.
    class Scope {
    public:
        Scope(Evaluator& run, Frame* parent);
        ~Scope();
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;

    private:
        Evaluator& run_;
        Frame* before_;
    };

    // Statements (evaluator.cpp).
    Flow execute(const Body& body);
    Flow execute(const Plain& node);
    Flow execute(const Print& node);
    Flow execute(const If& node);
    Flow execute(const For& node);
    Flow execute(const Set& node);
    Flow execute(const SetBlock& node);
    Flow execute(const MacroStatement& node);
    Flow execute(const CallBlock& node);
    Flow execute(const FilterBlock& node);
    Flow execute(const With& node);
    Flow execute(const Break&) { return Flow::leave; }
    Flow execute(const Continue&) { return Flow::next; }
    [[nodiscard]] std::vector<Value> items_for(const For& node);
    Flow loop(const For& node, std::vector<Value> items);
    [[nodiscard]] Text text_of_body(const Body& body);
    void assign(const Target& target, Value value);
    [[nodiscard]] Macro macro_here(const MacroNode& node);
    [[nodiscard]] Value call_macro(const Macro& macro, Arguments& arguments);
    void bind_parameters(const MacroNode& node, Arguments& arguments);

    // Expressions (evaluator_expressions.cpp).
    [[nodiscard]] Value value(const Literal& node) { return node.value; }
    [[nodiscard]] Value value(const Name& node);
    [[nodiscard]] Value value(const Attribute& node);
    [[nodiscard]] Value value(const Item& node);
    [[nodiscard]] Value value(const Slice& node);
    [[nodiscard]] Value value(const Call& node);
    [[nodiscard]] Value value(const Filtered& node);
    [[nodiscard]] Value value(const Test& node);
    [[nodiscard]] Value value(const Unary& node);
    [[nodiscard]] Value value(const Binary& node);
    [[nodiscard]] Value value(const Logic& node);
    [[nodiscard]] Value value(const Comparison& node);
    [[nodiscard]] Value value(const Concatenation& node);
    [[nodiscard]] Value value(const Choice& node);
    [[nodiscard]] Value value(const Sequence& node);
    [[nodiscard]] Value value(const Mapping& node);
    [[nodiscard]] Arguments arguments_of(const CallArguments& given);
    [[nodiscard]] Value call_builtin(Builtin builtin, Arguments& arguments);
    [[nodiscard]] Value loop_attribute(const Loop& loop, const std::shared_ptr<const std::string>& name);

    const Program& program_;
    Meter meter_;
    const DateFormatter& date_;
    std::deque<Frame> frames_;
    std::vector<Frame*> free_frames_;
    std::deque<Loop> loops_;
    std::deque<Namespace> namespaces_;
    Frame* frame_ = nullptr;
    Text* out_ = nullptr;
    int line_ = 1;
};

}  // namespace outrider::jinja
