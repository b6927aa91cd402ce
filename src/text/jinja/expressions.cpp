// Expressions, from the loosest binding to the tightest.
#include <algorithm>
#include <charconv>

#include "filters.hpp"
#include "parser.hpp"
#include "tests.hpp"

namespace outrider::jinja {
namespace {

constexpr std::size_t kHighest = 300;  ///< nesting of an expression; a + b + c has two levels

std::size_t height(const ExpressionPtr& part) { return part ? part->height : 0; }

template <typename... Parts>
std::size_t height(const Parts&... parts) {
    return std::max({height(parts)...});
}

std::size_t height(const std::vector<ExpressionPtr>& parts) {
    std::size_t most = 0;
    for (const ExpressionPtr& part : parts) most = std::max(most, height(part));
    return most;
}

std::size_t height(const CallArguments& a) {
    std::size_t most = std::max({height(a.placed), height(a.more), height(a.more_named)});
    for (const auto& [name, value] : a.named) most = std::max(most, height(value));
    return most;
}

std::size_t height(const Literal&) { return 0; }
std::size_t height(const Name&) { return 0; }
std::size_t height(const Attribute& n) { return height(n.object); }
std::size_t height(const Item& n) { return std::max(height(n.object), height(n.key)); }
std::size_t height(const Slice& n) {
    return std::max({height(n.object), height(n.begin), height(n.end), height(n.step)});
}
std::size_t height(const Call& n) { return std::max(height(n.callee), height(n.arguments)); }
std::size_t height(const Filtered& n) { return std::max(height(n.input), height(n.filter.arguments)); }
std::size_t height(const Test& n) { return std::max(height(n.input), height(n.arguments)); }
std::size_t height(const Unary& n) { return height(n.operand); }
std::size_t height(const Binary& n) { return std::max(height(n.left), height(n.right)); }
std::size_t height(const Logic& n) { return std::max(height(n.left), height(n.right)); }
std::size_t height(const Concatenation& n) { return height(n.parts); }
std::size_t height(const Choice& n) { return std::max({height(n.condition), height(n.yes), height(n.no)}); }
std::size_t height(const Sequence& n) { return height(n.items); }
std::size_t height(const Comparison& n) {
    std::size_t most = height(n.first);
    for (const auto& [kind, operand] : n.rest) most = std::max(most, height(operand));
    return most;
}
std::size_t height(const Mapping& n) {
    std::size_t most = 0;
    for (const auto& [key, value] : n.entries) most = std::max({most, height(key), height(value)});
    return most;
}

}  // namespace

template <typename Node>
ExpressionPtr Parser::make(Node node, int line) {
    const std::size_t high = height(node) + 1;
    require(high <= kHighest, "line {}: an expression of more than {} levels", line, kHighest);
    return std::make_unique<const Expression>(Expression{std::move(node), line, high});
}

ExpressionPtr Parser::expression(bool with_choice) {
    const Nested level(*this);
    return with_choice ? choice() : disjunction();
}

ExpressionPtr Parser::choice() {
    ExpressionPtr result = disjunction();
    while (now().is_name("if")) {
        const int line = take().line;
        ExpressionPtr condition = disjunction(), no;
        if (skip_name("else")) no = expression();
        result = make(Choice{std::move(condition), std::move(result), std::move(no)}, line);
    }
    return result;
}

ExpressionPtr Parser::disjunction() {
    ExpressionPtr left = conjunction();
    while (now().is_name("or")) {
        const int line = take().line;
        left = make(Logic{false, std::move(left), conjunction()}, line);
    }
    return left;
}

ExpressionPtr Parser::conjunction() {
    ExpressionPtr left = negation();
    while (now().is_name("and")) {
        const int line = take().line;
        left = make(Logic{true, std::move(left), negation()}, line);
    }
    return left;
}

ExpressionPtr Parser::negation() {
    if (!now().is_name("not")) return comparison();
    const Nested level(*this);
    const int line = take().line;
    return make(Unary{UnaryKind::negation, negation()}, line);
}

ExpressionPtr Parser::comparison() {
    constexpr std::pair<std::string_view, CompareKind> kKinds[] = {
        {"==", CompareKind::equal},   {"!=", CompareKind::unequal}, {"<", CompareKind::less},
        {"<=", CompareKind::at_most}, {">", CompareKind::greater},  {">=", CompareKind::at_least}};
    const int line = now().line;
    Comparison result{sum(), {}};
    for (;;) {
        const auto kind = std::ranges::find_if(kKinds, [&](const auto& k) { return now().is_sign(k.first); });
        if (kind != std::end(kKinds)) {
            ++at_;
            result.rest.emplace_back(kind->second, sum());
        } else if (skip_name("in")) {
            result.rest.emplace_back(CompareKind::in, sum());
        } else if (now().is_name("not") && after().is_name("in")) {
            at_ += 2;
            result.rest.emplace_back(CompareKind::not_in, sum());
        } else {
            break;
        }
    }
    return result.rest.empty() ? std::move(result.first) : make(std::move(result), line);
}

ExpressionPtr Parser::sum() {
    ExpressionPtr left = concatenation();
    while (now().is_sign("+") || now().is_sign("-")) {
        const Token sign = take();
        left = make(Binary{sign.text == "+" ? BinaryKind::add : BinaryKind::subtract, std::move(left), concatenation()},
                    sign.line);
    }
    return left;
}

ExpressionPtr Parser::concatenation() {
    const int line = now().line;
    Concatenation result;
    do result.parts.push_back(product());
    while (skip_sign("~"));
    return result.parts.size() == 1 ? std::move(result.parts[0]) : make(std::move(result), line);
}

ExpressionPtr Parser::product() {
    constexpr std::pair<std::string_view, BinaryKind> kKinds[] = {{"*", BinaryKind::multiply},
                                                                  {"/", BinaryKind::divide},
                                                                  {"//", BinaryKind::floor_divide},
                                                                  {"%", BinaryKind::modulo}};
    ExpressionPtr left = power();
    for (;;) {
        const auto kind = std::ranges::find_if(kKinds, [&](const auto& k) { return now().is_sign(k.first); });
        if (kind == std::end(kKinds)) return left;
        const int line = take().line;
        left = make(Binary{kind->second, std::move(left), power()}, line);
    }
}

ExpressionPtr Parser::power() {
    ExpressionPtr left = unary();
    while (now().is_sign("**")) {
        const int line = take().line;
        left = make(Binary{BinaryKind::power, std::move(left), unary()}, line);
    }
    return left;
}

ExpressionPtr Parser::unary(bool with_filter) {
    const Nested level(*this);
    ExpressionPtr node;
    if (now().is_sign("-") || now().is_sign("+")) {
        const Token sign = take();
        node = make(Unary{sign.text == "-" ? UnaryKind::minus : UnaryKind::plus, unary(false)}, sign.line);
    } else {
        node = primary();
    }
    node = postfix(std::move(node));
    return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionPtr Parser::primary() {
    const Token token = now();
    if (token.kind == TokenKind::name) {
        ++at_;
        if (token.text == "true" || token.text == "True") return make(Literal{Value(true)}, token.line);
        if (token.text == "false" || token.text == "False") return make(Literal{Value(false)}, token.line);
        if (token.text == "none" || token.text == "None") return make(Literal{Value(None{})}, token.line);
        if (!macros_.empty()) {
            macros_.back()->takes_caller |= token.text == "caller";
            macros_.back()->takes_more |= token.text == "varargs";
            macros_.back()->takes_named |= token.text == "kwargs";
        }
        return make(Name{number_of(token.text)}, token.line);
    }
    if (token.kind == TokenKind::string) {
        std::string text;
        while (now().kind == TokenKind::string) text += take().text;
        return make(Literal{Value(Text(std::move(text)))}, token.line);
    }
    if (token.kind == TokenKind::integer || token.kind == TokenKind::real) return number();
    if (skip_sign("(")) {
        ExpressionPtr result = tuple(true, true);
        expect_sign(")");
        return result;
    }
    if (token.is_sign("[")) return list();
    if (token.is_sign("{")) return mapping();
    unexpected("an expression");
}

ExpressionPtr Parser::number() {
    const Token token = take();
    const char* const end = token.text.data() + token.text.size();
    if (token.kind == TokenKind::real) {
        double value = 0;
        require(std::from_chars(token.text.data(), end, value).ec == std::errc(),
                "line {}: the number {} is out of range", token.line, token.text);
        return make(Literal{Value(value)}, token.line);
    }
    const char mark = token.text.size() > 1 ? token.text[1] : '\0';
    const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    std::int64_t value = 0;
    require(std::from_chars(token.text.data() + (base == 10 ? 0 : 2), end, value, base).ec == std::errc(),
            "line {}: the number {} is out of range", token.line, token.text);
    return make(Literal{Value(value)}, token.line);
}

ExpressionPtr Parser::tuple(bool with_choice, bool in_parentheses, std::string_view end) {
    const int line = now().line;
    Sequence result{Series::tuple, {}};
    bool comma = false;
    for (;;) {
        const TokenKind kind = now().kind;
        if (kind == TokenKind::print_end || kind == TokenKind::block_end || now().is_sign(")") ||
            (!end.empty() && now().is_name(end)))
            break;
        result.items.push_back(expression(with_choice));
        if (!skip_sign(",")) break;
        comma = true;
    }
    if (!comma && result.items.size() == 1) return std::move(result.items[0]);
    if (!comma && !in_parentheses) unexpected("an expression");
    return make(std::move(result), line);
}

ExpressionPtr Parser::list() {
    const int line = take().line;
    Sequence result{Series::list, {}};
    while (!now().is_sign("]")) {
        if (!result.items.empty()) expect_sign(",");
        if (now().is_sign("]")) break;
        result.items.push_back(expression());
    }
    expect_sign("]");
    return make(std::move(result), line);
}

ExpressionPtr Parser::mapping() {
    const int line = take().line;
    Mapping result;
    while (!now().is_sign("}")) {
        if (!result.entries.empty()) expect_sign(",");
        if (now().is_sign("}")) break;
        ExpressionPtr key = expression();
        expect_sign(":");
        result.entries.emplace_back(std::move(key), expression());
    }
    expect_sign("}");
    return make(std::move(result), line);
}

ExpressionPtr Parser::postfix(ExpressionPtr node) {
    for (;;) {
        if (now().is_sign(".") || now().is_sign("[")) {
            node = subscript(std::move(node));
        } else if (now().is_sign("(")) {
            const int line = now().line;
            node = make(Call{std::move(node), call_arguments()}, line);
        } else {
            return node;
        }
    }
}

ExpressionPtr Parser::filters_and_tests(ExpressionPtr node) {
    for (;;) {
        const int line = now().line;
        if (skip_sign("|")) {
            node = make(Filtered{std::move(node), filter()}, line);
        } else if (skip_name("is")) {
            node = test(std::move(node));
        } else if (now().is_sign("(")) {
            node = make(Call{std::move(node), call_arguments()}, line);
        } else {
            return node;
        }
    }
}

ExpressionPtr Parser::subscript(ExpressionPtr node) {
    const Token sign = take();
    if (sign.text == ".") {
        if (now().kind == TokenKind::name) return make(Attribute{std::move(node), take().text}, sign.line);
        if (now().kind != TokenKind::integer) unexpected("a name or a number");
        return make(Item{std::move(node), number()}, sign.line);
    }
    ExpressionPtr key;
    if (!now().is_sign(":")) key = expression();
    if (now().is_sign(":")) return sliced(std::move(node), std::move(key));
    if (!now().is_sign(",")) {
        expect_sign("]");
        return make(Item{std::move(node), std::move(key)}, sign.line);
    }
    Sequence several{Series::tuple, {}};
    several.items.push_back(std::move(key));
    while (skip_sign(",")) several.items.push_back(expression());
    expect_sign("]");
    return make(Item{std::move(node), make(std::move(several), sign.line)}, sign.line);
}

ExpressionPtr Parser::sliced(ExpressionPtr object, ExpressionPtr begin) {
    const int line = now().line;
    Slice result{std::move(object), std::move(begin), nullptr, nullptr};
    expect_sign(":");
    if (!now().is_sign(":") && !now().is_sign("]")) result.end = expression();
    if (skip_sign(":") && !now().is_sign("]")) result.step = expression();
    expect_sign("]");
    return make(std::move(result), line);
}

ExpressionPtr Parser::test(ExpressionPtr node) {
    const int line = now().line;
    const bool negated = skip_name("not");
    Test result{std::move(node), dotted_name(), nullptr, {}};
    result.function = find_test(result.name);
    const TokenKind kind = now().kind;
    if (now().is_sign("(")) {
        result.arguments = call_arguments();
    } else if ((kind == TokenKind::name && !now().is_name("else") && !now().is_name("or") && !now().is_name("and")) ||
               kind == TokenKind::string || kind == TokenKind::integer || kind == TokenKind::real ||
               now().is_sign("[") || now().is_sign("{")) {
        require(!now().is_name("is"), "line {}: several tests in a row", line);
        result.arguments.placed.push_back(postfix(primary()));
    }
    ExpressionPtr tested = make(std::move(result), line);
    return negated ? make(Unary{UnaryKind::negation, std::move(tested)}, line) : std::move(tested);
}

CallArguments Parser::call_arguments() {
    const Nested level(*this);
    const int line = now().line;
    CallArguments result;
    const auto check = [&](bool fits) { require(fits, "line {}: arguments of a call in the wrong order", line); };
    expect_sign("(");
    for (bool first = true; !now().is_sign(")"); first = false) {
        if (!first) expect_sign(",");
        if (now().is_sign(")")) break;
        if (skip_sign("*")) {
            check(!result.more && !result.more_named);
            result.more = expression();
        } else if (skip_sign("**")) {
            check(!result.more_named);
            result.more_named = expression();
        } else if (now().kind == TokenKind::name && after().is_sign("=")) {
            check(!result.more_named);
            std::string name = take().text;
            ++at_;
            result.named.emplace_back(std::move(name), expression());
        } else {
            check(!result.more && !result.more_named && result.named.empty());
            result.placed.push_back(expression());
        }
    }
    expect_sign(")");
    return result;
}

std::string Parser::dotted_name() {
    std::string name = expect_name();
    while (skip_sign(".")) name += "." + expect_name();
    return name;
}

FilterUse Parser::filter() {
    FilterUse result{dotted_name(), nullptr, {}};
    result.function = find_filter(result.name);
    if (now().is_sign("(")) result.arguments = call_arguments();
    return result;
}

}  // namespace outrider::jinja
