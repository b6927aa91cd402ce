// From tokens to nodes: jinja2's grammar (jinja2/parser.py 3.1), by descent.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lexer.hpp"
#include "nodes.hpp"

namespace outrider::jinja {

class Parser {
public:
    explicit Parser(std::string_view source);

    [[nodiscard]] Program run();

private:
    // Statements (parser.cpp).
    [[nodiscard]] Body body(std::initializer_list<std::string_view> ends);
    [[nodiscard]] Body body_of_statement(std::initializer_list<std::string_view> ends);
    [[nodiscard]] Statement::Node statement();
    [[nodiscard]] Statement::Node if_statement();
    [[nodiscard]] Statement::Node for_statement();
    [[nodiscard]] Statement::Node set_statement();
    [[nodiscard]] Statement::Node macro_statement();
    [[nodiscard]] Statement::Node call_statement();
    [[nodiscard]] Statement::Node filter_statement();
    [[nodiscard]] Statement::Node generation_statement();
    [[nodiscard]] Statement::Node with_statement();
    [[nodiscard]] Target target(bool with_namespace, std::string_view end = {});
    [[nodiscard]] Target one_target(bool with_namespace);
    void signature(MacroNode& macro);
    void macro_body(MacroNode& macro, std::string_view end);
    void end_of(std::string_view name);

    // Expressions (expressions.cpp).
    [[nodiscard]] ExpressionPtr expression(bool with_choice = true);
    [[nodiscard]] ExpressionPtr tuple(bool with_choice = true, bool in_parentheses = false, std::string_view end = {});
    [[nodiscard]] ExpressionPtr choice();
    [[nodiscard]] ExpressionPtr disjunction();
    [[nodiscard]] ExpressionPtr conjunction();
    [[nodiscard]] ExpressionPtr negation();
    [[nodiscard]] ExpressionPtr comparison();
    [[nodiscard]] ExpressionPtr sum();
    [[nodiscard]] ExpressionPtr concatenation();
    [[nodiscard]] ExpressionPtr product();
    [[nodiscard]] ExpressionPtr power();
    [[nodiscard]] ExpressionPtr unary(bool with_filter = true);
    [[nodiscard]] ExpressionPtr primary();
    [[nodiscard]] ExpressionPtr number();
    [[nodiscard]] ExpressionPtr list();
    [[nodiscard]] ExpressionPtr mapping();
    [[nodiscard]] ExpressionPtr postfix(ExpressionPtr node);
    [[nodiscard]] ExpressionPtr filters_and_tests(ExpressionPtr node);
    [[nodiscard]] ExpressionPtr subscript(ExpressionPtr node);
    [[nodiscard]] ExpressionPtr sliced(ExpressionPtr object, ExpressionPtr begin);
    [[nodiscard]] ExpressionPtr test(ExpressionPtr node);
    [[nodiscard]] CallArguments call_arguments();
    [[nodiscard]] FilterUse filter();
    [[nodiscard]] std::string dotted_name();

    /// An expression that holds `parts`, whose nesting it checks.
    template <typename Node>
    [[nodiscard]] ExpressionPtr make(Node node, int line);

    // Tokens.
    [[nodiscard]] const Token& now() const { return tokens_[at_]; }
    [[nodiscard]] const Token& after() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
    Token take();
    bool skip_sign(std::string_view sign);
    bool skip_name(std::string_view name);
    void expect_sign(std::string_view sign);
    [[nodiscard]] std::string expect_name();
    void expect_block_end();
    [[noreturn]] void unexpected(std::string_view expected) const;
    [[nodiscard]] int number_of(const std::string& name);

    /// One level of nesting while it lives.
    struct Nested {
        explicit Nested(Parser& parser);
        ~Nested() { --parser_.depth_; }
        Nested(const Nested&) = delete;
        Nested& operator=(const Nested&) = delete;
        Parser& parser_;
    };

    std::vector<Token> tokens_;
    std::size_t at_ = 0;
    std::vector<std::string> names_;
    std::unordered_map<std::string, int> numbers_;
    std::size_t depth_ = 0;
    int loops_ = 0;                        // around this place, within this macro
    std::vector<MacroNode*> macros_ = {};  // around this place
};

}  // namespace outrider::jinja
