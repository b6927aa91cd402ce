// Answers by a grammar: GBNF, as llama.cpp writes it, or the JSON of a schema.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <outrider/core/constraint.hpp>
#include <outrider/core/detail/export.hpp>
#include <outrider/core/prompt.hpp>

namespace outrider {

/// A context-free grammar over bytes. A cheap handle on immutable rules.
class OUTRIDER_API Grammar {
public:
    struct Rules;

    /// GBNF: `name ::= alternatives`, literals, character classes, groups, `* + ? {m,n}`, comments; the text begins at
    /// `root`. Throws Error with line and column for what is none, for unknown rules, for left recursion, and for more
    /// than 524,288 symbols or 16,384 alternatives of a rule.
    [[nodiscard]] static Grammar parse(std::string_view gbnf);

    /// The JSON texts that a schema allows, properties in the order given: type, properties, required, items, minItems,
    /// maxItems, minLength, maxLength, enum, const, anyOf, $ref within the document, additionalProperties where it
    /// stands alone. Throws Error that names every other keyword that would restrict the text.
    [[nodiscard]] static Grammar json_schema(std::string_view schema);

    /// Any JSON value.
    [[nodiscard]] static Grammar json() { return json_schema("{}"); }

    [[nodiscard]] const std::shared_ptr<const Rules>& rules() const noexcept { return rules_; }

private:
    explicit Grammar(std::shared_ptr<const Rules> rules) : rules_(std::move(rules)) {}
    std::shared_ptr<const Rules> rules_;
};

/// The GBNF that Grammar::json_schema parses, for reading.
[[nodiscard]] OUTRIDER_API std::string json_schema_to_gbnf(std::string_view schema);

/// The bytes of a vocabulary's tokens as a trie: made once a tokenizer, shared by all grammars over it.
class OUTRIDER_API TokenTrie {
public:
    /// Nodes in depth-first order; node 0 is the root.
    struct Node {
        std::uint8_t byte = 0;
        std::int32_t depth = 0;
        std::int32_t end = 0;      ///< after the last node below it
        TokenId token = kNoToken;  ///< that ends here, the lowest id; kNoToken: none
    };

    /// Tokens without bytes, as special ones are, are in no text and in no trie.
    TokenTrie(const Detokenizer& text, std::int64_t vocabulary);

    [[nodiscard]] const std::vector<Node>& nodes() const noexcept { return nodes_; }
    /// The next token with the same bytes; kNoToken: none.
    [[nodiscard]] TokenId same(TokenId token) const { return same_[static_cast<std::size_t>(token)]; }
    [[nodiscard]] const std::string& bytes(TokenId token) const { return bytes_[static_cast<std::size_t>(token)]; }
    [[nodiscard]] std::int64_t vocabulary() const noexcept { return static_cast<std::int64_t>(bytes_.size()); }

    /// `bytes` cut into tokens, the longest first from the left; what no token begins is left out at the end.
    [[nodiscard]] std::vector<TokenId> cut(std::string_view bytes) const;

private:
    void add(std::span<const TokenId> sorted, std::int32_t depth, std::int32_t parent);

    std::vector<Node> nodes_;
    std::vector<TokenId> same_;       ///< [V]
    std::vector<std::string> bytes_;  ///< [V]
};

/// An answer that the grammar derives. It may end where a derivation is whole; where nothing may follow, it does. What
/// the grammar leaves no choice of is drafted. Serves any number of requests and threads. What it works out is
/// remembered in kMostBytes about, a forward's worth beyond; what a text that runs stands on comes on top.
class OUTRIDER_API GrammarConstraint final : public Constraint {
public:
    static constexpr std::size_t kMostBytes = std::size_t{16} << 20;

    /// `tokens`: of the target's tokenizer.
    GrammarConstraint(const Grammar& grammar, std::shared_ptr<const TokenTrie> tokens);
    ~GrammarConstraint() override;

    [[nodiscard]] State begin(const ConstraintScope& scope) const override;
    [[nodiscard]] State next(const State& state, TokenId token) const override;
    void mask(const State& state, std::span<float> logits) const override;
    [[nodiscard]] bool allows(const State& state, TokenId token) const override;
    [[nodiscard]] std::vector<TokenId> expected(const State& state) const override;
    [[nodiscard]] bool finished(const State& state) const override;

    /// Memory taken by what is remembered, about.
    [[nodiscard]] std::size_t bytes() const;

private:
    struct Shared;
    std::unique_ptr<Shared> shared_;
};

}  // namespace outrider
