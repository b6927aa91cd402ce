#include "parser.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "filters.hpp"

namespace outrider::jinja {
namespace {

constexpr std::size_t kDeepest = 100;  ///< nested statements, brackets and the like

std::string shown(const Token& token) {
    switch (token.kind) {
        case TokenKind::end: return "the end of the template";
        case TokenKind::data: return "text";
        case TokenKind::block_begin: return "{%";
        case TokenKind::block_end: return "%}";
        case TokenKind::print_begin: return "{{";
        case TokenKind::print_end: return "}}";
        default: return fmt::format("'{}'", token.text);
    }
}

bool names(const Target& target, int name) {
    return target.name == name ||
           std::ranges::any_of(target.several, [&](const Target& part) { return names(part, name); });
}

}  // namespace

Program parse(std::string_view source) { return Parser(source).run(); }

Parser::Parser(std::string_view source) : tokens_(tokenize(source)) {
    for (const char* name : kKnownNameTexts) (void)number_of(name);
}

Program Parser::run() {
    Body all = body({});
    return {std::move(names_), std::move(all)};
}

Parser::Nested::Nested(Parser& parser) : parser_(parser) {
    if (++parser_.depth_ <= kDeepest) return;
    --parser_.depth_;
    fail("line {}: nested deeper than {} levels", parser_.now().line, kDeepest);
}

Token Parser::take() {
    Token token = now();
    if (token.kind != TokenKind::end) ++at_;
    return token;
}

bool Parser::skip_sign(std::string_view sign) {
    if (!now().is_sign(sign)) return false;
    ++at_;
    return true;
}

bool Parser::skip_name(std::string_view name) {
    if (!now().is_name(name)) return false;
    ++at_;
    return true;
}

void Parser::expect_sign(std::string_view sign) {
    if (!skip_sign(sign)) unexpected(sign);
}

std::string Parser::expect_name() {
    if (now().kind != TokenKind::name) unexpected("a name");
    return take().text;
}

void Parser::expect_block_end() {
    if (now().kind != TokenKind::block_end) unexpected("%}");
    ++at_;
}

void Parser::unexpected(std::string_view expected) const {
    fail("line {}: {} where {} is expected", now().line, shown(now()), expected);
}

int Parser::number_of(const std::string& name) {
    const auto [place, fresh] = numbers_.try_emplace(name, static_cast<int>(names_.size()));
    if (fresh) names_.push_back(name);
    return place->second;
}

/// Up to one of the statements `ends`, which is then the current token; {}: up to the end of the template.
Body Parser::body(std::initializer_list<std::string_view> ends) {
    const Nested level(*this);
    Body result;
    for (;;) {
        const Token token = take();
        switch (token.kind) {
            case TokenKind::data: result.push_back({Plain{Value(Text(token.text))}, token.line}); break;
            case TokenKind::print_begin:
                result.push_back({Print{tuple()}, token.line});
                if (now().kind != TokenKind::print_end) unexpected("}}");
                ++at_;
                break;
            case TokenKind::block_begin:
                if (std::ranges::any_of(ends, [&](std::string_view end) { return now().is_name(end); })) return result;
                result.push_back({statement(), token.line});
                expect_block_end();
                break;
            default:
                require(ends.size() == 0, "line {}: the end of the template where {{% {} %}} is expected", token.line,
                        ends.size() == 0 ? std::string_view() : *(ends.end() - 1));
                return result;
        }
    }
}

/// The body behind the head of a statement.
Body Parser::body_of_statement(std::initializer_list<std::string_view> ends) {
    (void)skip_sign(":");
    expect_block_end();
    return body(ends);
}

Statement::Node Parser::statement() {
    const Token token = now();
    if (token.kind != TokenKind::name) unexpected("the name of a statement");
    ++at_;
    if (token.text == "if") return if_statement();
    if (token.text == "for") return for_statement();
    if (token.text == "set") return set_statement();
    if (token.text == "macro") return macro_statement();
    if (token.text == "call") return call_statement();
    if (token.text == "filter") return filter_statement();
    if (token.text == "generation") return generation_statement();
    if (token.text == "with") return with_statement();
    if (token.text == "break" || token.text == "continue") {
        require(loops_ > 0, "line {}: {} outside of a for statement", token.line, token.text);
        if (token.text == "break") return Break{};
        return Continue{};
    }
    for (const char* known : {"block", "extends", "include", "import", "from", "autoescape", "print"})
        require(token.text != known,
                "line {}: the statement '{}', which chat templates have no use for, is not supported", token.line,
                token.text);
    fail("line {}: there is no statement '{}'", token.line, token.text);
}

void Parser::end_of(std::string_view name) {
    if (!skip_name(name)) unexpected(name);
}

Statement::Node Parser::if_statement() {
    If result;
    for (;;) {
        ExpressionPtr condition = tuple(false);
        Body block = body_of_statement({"elif", "else", "endif"});
        result.branches.emplace_back(std::move(condition), std::move(block));
        if (skip_name("elif")) continue;
        if (skip_name("else")) result.otherwise = body_of_statement({"endif"});
        end_of("endif");
        return result;
    }
}

Statement::Node Parser::for_statement() {
    For result;
    const int line = now().line;
    result.target = target(false, "in");
    require(!names(result.target, kLoop), "line {}: a for statement cannot write to 'loop'", line);
    end_of("in");
    result.items = tuple(false, false, "recursive");
    if (skip_name("if")) result.condition = expression();
    require(!now().is_name("recursive"), "line {}: recursive for statements are not supported", now().line);
    ++loops_;
    result.body = body_of_statement({"endfor", "else"});
    --loops_;
    if (skip_name("else")) result.otherwise = body_of_statement({"endfor"});
    end_of("endfor");
    return result;
}

Statement::Node Parser::set_statement() {
    Target to = target(true);
    if (skip_sign("=")) return Set{std::move(to), tuple()};
    SetBlock result{std::move(to), {}, {}};
    while (skip_sign("|")) result.filters.push_back(filter());
    result.body = body_of_statement({"endset"});
    end_of("endset");
    return result;
}

void Parser::signature(MacroNode& macro) {
    expect_sign("(");
    while (!now().is_sign(")")) {
        if (!macro.parameters.empty()) expect_sign(",");
        const int line = now().line;
        macro.parameters.push_back(number_of(expect_name()));
        if (skip_sign("="))
            macro.defaults.push_back(expression());
        else
            require(macro.defaults.empty(), "line {}: a parameter without a default behind one that has one", line);
    }
    expect_sign(")");
}

void Parser::macro_body(MacroNode& macro, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    macros_.push_back(&macro);
    macro.body = body_of_statement({end});
    macros_.pop_back();
    loops_ = loops;
    end_of(end);
}

Statement::Node Parser::macro_statement() {
    auto macro = std::make_unique<MacroNode>();
    macro->name = expect_name();
    const int name = number_of(macro->name);
    signature(*macro);
    macro_body(*macro, "endmacro");
    return MacroStatement{name, std::move(macro)};
}

Statement::Node Parser::call_statement() {
    auto caller = std::make_unique<MacroNode>();
    caller->name = "caller";
    if (now().is_sign("(")) signature(*caller);
    ExpressionPtr call = expression();
    require(std::holds_alternative<Call>(call->node), "line {}: a call statement without a call", call->line);
    macro_body(*caller, "endcall");
    return CallBlock{std::move(call), std::move(caller)};
}

Statement::Node Parser::filter_statement() {
    FilterBlock result;
    do result.filters.push_back(filter());
    while (skip_sign("|"));
    result.body = body_of_statement({"endfilter"});
    end_of("endfilter");
    return result;
}

/// What an assistant wrote. transformers marks it for training; the text is that of its body.
Statement::Node Parser::generation_statement() {
    With result;
    const int loops = std::exchange(loops_, 0);
    result.body = body_of_statement({"endgeneration"});
    loops_ = loops;
    end_of("endgeneration");
    return result;
}

Statement::Node Parser::with_statement() {
    With result;
    while (now().kind != TokenKind::block_end) {
        if (!result.values.empty()) expect_sign(",");
        Target to = one_target(false);
        expect_sign("=");
        result.values.emplace_back(std::move(to), expression());
    }
    result.body = body_of_statement({"endwith"});
    end_of("endwith");
    return result;
}

Target Parser::one_target(bool with_namespace) {
    if (skip_sign("(")) {
        Target result = target(with_namespace, ")");
        expect_sign(")");
        return result;
    }
    const int line = now().line;
    const std::string name = expect_name();
    for (const char* constant : {"true", "false", "none", "True", "False", "None"})
        require(name != constant, "line {}: nothing can be written to '{}'", line, name);
    Target result{number_of(name)};
    if (with_namespace && skip_sign(".")) result.attribute = expect_name();
    return result;
}

/// `end`: the name or sign that ends it, for a comma before it.
Target Parser::target(bool with_namespace, std::string_view end) {
    const Nested level(*this);
    Target first = one_target(with_namespace);
    if (!now().is_sign(",")) return first;
    Target result;
    result.several.push_back(std::move(first));
    while (skip_sign(",")) {
        if (now().is_sign("=") || now().is_sign(end) || now().is_name(end)) break;
        result.several.push_back(one_target(with_namespace));
    }
    return result;
}

}  // namespace outrider::jinja
