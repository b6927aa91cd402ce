// Statements and scopes.
#include "evaluator.hpp"

#include <algorithm>

#include "filters.hpp"

namespace outrider::jinja {

void Frame::set(int name, Value value) {
    for (auto& [known, held] : values)
        if (known == name) return void(held = std::move(value));
    values.emplace_back(name, std::move(value));
}

Evaluator::Scope::Scope(Evaluator& run, Frame* parent) : run_(run), before_(run.frame_) {
    if (run.free_frames_.empty()) {
        run.meter_.made(sizeof(Frame));
        run.frame_ = &run.frames_.emplace_back();
    } else {
        run.frame_ = run.free_frames_.back();
        run.free_frames_.pop_back();
    }
    run.frame_->parent = parent;
}

Evaluator::Scope::~Scope() {
    if (!run_.frame_->kept) {
        run_.frame_->values.clear();
        run_.free_frames_.push_back(run_.frame_);
    }
    run_.frame_ = before_;
}

Evaluator::Evaluator(const Program& program, const Limits& limits, const DateFormatter& date)
    : program_(program), meter_(limits), date_(date) {
    free_frames_.reserve(16);
}

Text Evaluator::run(const Variables& variables) {
    Text out;
    out_ = &out;
    try {
        const Scope given(*this, nullptr);
        for (const auto& [name, value] : variables) {
            const auto found = std::ranges::find(program_.names, name);
            if (found != program_.names.end()) frame_->set(static_cast<int>(found - program_.names.begin()), value);
        }
        const Scope own(*this, frame_);
        (void)execute(program_.body);
    } catch (const Error& error) {
        fail("line {}: {}", line_, error.what());
    }
    return out;
}

Evaluator::Flow Evaluator::execute(const Body& body) {
    const Meter::Level level(meter_);
    for (const Statement& statement : body) {
        meter_.step();
        line_ = statement.line;
        const Flow flow = std::visit([this](const auto& node) { return execute(node); }, statement.node);
        if (flow != Flow::on) return flow;
    }
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const Plain& node) {
    append_printed(*out_, node.text, meter_);
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const Print& node) {
    const Value printed = evaluate(*node.value);
    append_printed(*out_, printed, meter_);
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const If& node) {
    for (const auto& [condition, body] : node.branches)
        if (is_true(evaluate(*condition))) return execute(body);
    return execute(node.otherwise);
}

std::vector<Value> Evaluator::items_for(const For& node) {
    std::vector<Value> items = items_of(evaluate(*node.items), meter_);
    if (!node.condition) return items;
    std::vector<Value> kept;
    for (Value& item : items) {
        const Scope scope(*this, frame_);
        assign(node.target, item);
        if (is_true(evaluate(*node.condition))) kept.push_back(std::move(item));
    }
    return kept;
}

Evaluator::Flow Evaluator::execute(const For& node) {
    std::vector<Value> items = items_for(node);
    if (!items.empty()) return loop(node, std::move(items));
    const Scope scope(*this, frame_);
    return execute(node.otherwise);
}

Evaluator::Flow Evaluator::loop(const For& node, std::vector<Value> items) {
    meter_.made(sizeof(Loop));
    Loop& loop = loops_.emplace_back();
    loop.items = std::move(items);
    for (; loop.index < loop.items.size(); ++loop.index) {
        meter_.step();
        const Scope scope(*this, frame_);
        frame_->set(kLoop, &loop);
        assign(node.target, loop.items[loop.index]);
        if (execute(node.body) == Flow::leave) break;
    }
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const Set& node) {
    assign(node.target, evaluate(*node.value));
    return Flow::on;
}

/// The text that `body` writes, in a scope of its own.
Text Evaluator::text_of_body(const Body& body) {
    struct Restored {
        Text*& place;
        Text* before;
        ~Restored() { place = before; }
    };
    Text text;
    const Restored restored{out_, std::exchange(out_, &text)};
    const Scope scope(*this, frame_);
    (void)execute(body);
    return text;
}

Evaluator::Flow Evaluator::execute(const SetBlock& node) {
    Value value(text_of_body(node.body));
    for (const FilterUse& filter : node.filters) value = filtered(filter, value);
    assign(node.target, std::move(value));
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const FilterBlock& node) {
    Value value(text_of_body(node.body));
    for (const FilterUse& filter : node.filters) value = filtered(filter, value);
    append_printed(*out_, value, meter_);
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const With& node) {
    std::vector<Value> values;
    for (const auto& [target, expression] : node.values) values.push_back(evaluate(*expression));
    const Scope scope(*this, frame_);
    for (std::size_t i = 0; i < values.size(); ++i) assign(node.values[i].first, std::move(values[i]));
    return execute(node.body);
}

void Evaluator::assign(const Target& target, Value value) {
    if (!target.several.empty()) {
        std::vector<Value> values = items_of(value, meter_);
        require(values.size() == target.several.size(), "{} values for {} names", values.size(), target.several.size());
        for (std::size_t i = 0; i < values.size(); ++i) assign(target.several[i], std::move(values[i]));
        return;
    }
    if (target.attribute.empty()) return frame_->set(target.name, std::move(value));
    const Value object = this->value(Name{target.name});
    require(object.is<Namespace*>(), "'{}' is no namespace, and nothing else can be written to",
            program_.names[static_cast<std::size_t>(target.name)]);
    require(!target.attribute.starts_with('_'), "'{}': names of a namespace do not begin with an underscore",
            target.attribute);
    Namespace& space = *std::get<Namespace*>(object.held());
    meter_.made(sizeof(Value));
    meter_.step(space.values.size() / 8);
    space.set(target.attribute, std::move(value));
}

Macro Evaluator::macro_here(const MacroNode& node) {
    for (Frame* frame = frame_; frame != nullptr && !frame->kept; frame = frame->parent) frame->kept = true;
    return {&node, frame_};
}

Evaluator::Flow Evaluator::execute(const MacroStatement& node) {
    frame_->set(node.name, macro_here(*node.macro));
    return Flow::on;
}

Evaluator::Flow Evaluator::execute(const CallBlock& node) {
    const Call& call_node = std::get<Call>(node.call->node);
    Arguments arguments = arguments_of(call_node.arguments);
    arguments.named.emplace_back("caller", macro_here(*node.caller));
    const Value result = call(evaluate(*call_node.callee), arguments);
    append_printed(*out_, result, meter_);
    return Flow::on;
}

void Evaluator::bind_parameters(const MacroNode& node, Arguments& arguments) {
    const auto taken = [&](std::size_t i) -> const Value* {
        if (i < arguments.placed.size()) return &arguments.placed[i];
        const std::string& name = program_.names[static_cast<std::size_t>(node.parameters[i])];
        const auto found = std::ranges::find(arguments.named, name, &std::pair<std::string, Value>::first);
        return found != arguments.named.end() ? &found->second : nullptr;
    };
    const std::size_t count = node.parameters.size();
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t first_default = count - node.defaults.size();
        if (const Value* given = taken(i))
            frame_->set(node.parameters[i], *given);
        else if (i >= first_default)
            frame_->set(node.parameters[i], evaluate(*node.defaults[i - first_default]));
        else
            frame_->set(node.parameters[i],
                        Value::undefined("parameter '{1}' was not provided", "",
                                         std::make_shared<const std::string>(
                                             program_.names[static_cast<std::size_t>(node.parameters[i])])));
    }
}

Value Evaluator::call_macro(const Macro& macro, Arguments& arguments) {
    const Meter::Level level(meter_);
    const MacroNode& node = *macro.node;
    const std::size_t count = node.parameters.size();
    require(arguments.placed.size() <= count || node.takes_more, "the macro {} takes at most {} arguments, not {}",
            node.name, count, arguments.placed.size());
    auto more = std::make_shared<Dict>();
    Value caller = Value::undefined("no caller defined");
    for (const auto& [name, value] : arguments.named) {
        const bool parameter = std::ranges::any_of(
            node.parameters, [&](int number) { return program_.names[static_cast<std::size_t>(number)] == name; });
        if (parameter) continue;
        if (name == "caller" && node.takes_caller)
            caller = value;
        else
            require(node.takes_named, "the macro {} takes no argument '{}'", node.name, name);
        if (name != "caller") more->set(Value(Text(name)), value, meter_);
    }
    const Scope scope(*this, macro.scope);
    if (node.takes_caller) frame_->set(kCaller, std::move(caller));
    if (node.takes_named) frame_->set(kKwargs, Value(std::shared_ptr<const Dict>(std::move(more))));
    if (node.takes_more) {
        std::vector<Value> rest;
        for (std::size_t i = count; i < arguments.placed.size(); ++i) rest.push_back(arguments.placed[i]);
        frame_->set(kVarargs, Value::list(std::move(rest), Series::tuple));
    }
    bind_parameters(node, arguments);
    return Value(text_of_body(node.body));
}

}  // namespace outrider::jinja
