// A grammar over bytes, flat: what parsers make and the automaton walks.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <outrider/text/grammar.hpp>

namespace outrider {

struct GrammarSymbol {
    enum class Kind : std::uint8_t { end, bytes, rule };
    Kind kind = Kind::end;
    std::uint8_t low = 0, high = 0;  ///< bytes: the range, both ends in it
    std::int32_t rule = 0;
};

/// Alternatives of all rules one after another, each closed by an end symbol.
struct Grammar::Rules {
    std::vector<GrammarSymbol> symbols;
    std::vector<std::vector<std::int32_t>> starts;  ///< [rule] where its alternatives begin
    std::int32_t root = 0;
};

/// Collects rules. Rules may be named before they are defined. Throws Error for a grammar beyond kMostSymbols or a rule
/// beyond kMostAlternatives: both cost memory, and time for each token, that whoever sends a grammar does not pay.
class RuleBuilder {
public:
    using Sequence = std::vector<GrammarSymbol>;
    static constexpr std::size_t kMostSymbols = std::size_t{1} << 19;  ///< an alternative counts for one more
    static constexpr std::size_t kMostAlternatives = 16'384;           ///< of one rule

    [[nodiscard]] std::int32_t add_rule();
    [[nodiscard]] std::size_t rules() const noexcept { return rules_.size(); }
    void add_alternative(std::int32_t rule, Sequence sequence);

    [[nodiscard]] static GrammarSymbol reference(std::int32_t rule) {
        return {.kind = GrammarSymbol::Kind::rule, .rule = rule};
    }
    [[nodiscard]] static Sequence literal(std::string_view bytes);
    /// One character of these ranges of code points (first and last), as UTF-8.
    [[nodiscard]] Sequence one_of(std::vector<std::pair<char32_t, char32_t>> ranges, bool negated);
    /// Whether nothing is of what `one_of` gave.
    [[nodiscard]] bool empty(const Sequence& one) const {
        return rules_[static_cast<std::size_t>(one.front().rule)].empty();
    }
    /// Throws Error where so many more symbols are too many.
    void reserve(std::size_t symbols) const;
    /// `least` to `most` times, most < 0: without bound.
    [[nodiscard]] Sequence repeated(const Sequence& what, std::int64_t least, std::int64_t most);

    /// Throws Error for a rule that begins with itself, and where the root derives no text; `names` for the message.
    /// Alternatives that could never come to an end are left out: whoever entered one would not get out again.
    [[nodiscard]] Grammar::Rules build(std::int32_t root, const std::vector<std::string>& names) &&;

private:
    /// Rules with an alternative whose rules are marked too and whose bytes, if it has any, `bytes_too` lets pass.
    [[nodiscard]] std::vector<bool> closed_under(bool bytes_too) const;
    [[nodiscard]] std::vector<bool> nullable() const { return closed_under(false); }
    /// Rules that derive a text, if only the empty one.
    [[nodiscard]] std::vector<bool> productive() const { return closed_under(true); }
    void check_left_recursion(const std::vector<std::string>& names) const;

    std::vector<std::vector<Sequence>> rules_;
    std::size_t symbols_ = 0;
};

}  // namespace outrider
