// GBNF to rules.
#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include <outrider/core/error.hpp>

#include "rules.hpp"

namespace outrider {
namespace {

using Sequence = RuleBuilder::Sequence;

constexpr std::int64_t kMostRepetitions = 4096;

bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class GbnfParser {
public:
    explicit GbnfParser(std::string_view text) : text_(text) {}

    Grammar::Rules parse() {
        for (skip(true); at_ < text_.size(); skip(true)) rule();
        for (std::size_t r = 0; r < names_.size(); ++r)
            if (!names_[r].empty() && !defined_[r])
                fail("grammar: rule {} is used and not defined; define it: {} ::= ...", names_[r], names_[r]);
        const auto root = ids_.find("root");
        require(root != ids_.end(), "grammar: no rule named root; the text begins at it");
        return std::move(builder_).build(root->second, names_);
    }

private:
    [[noreturn]] void refuse(std::string_view what) const {
        std::size_t line = 1, column = 1;
        for (std::size_t i = 0; i < at_ && i < text_.size(); ++i) text_[i] == '\n' ? (++line, column = 1) : ++column;
        fail("grammar, line {}, column {}: {}", line, column, what);
    }

    [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    bool take(std::string_view word) {
        if (!text_.substr(at_).starts_with(word)) return false;
        at_ += word.size();
        return true;
    }

    /// Blanks and comments; line ends too where they mean nothing.
    void skip(bool lines) {
        for (; at_ < text_.size(); ++at_) {
            const char c = text_[at_];
            if (c == '#')
                while (at_ + 1 < text_.size() && text_[at_ + 1] != '\n') ++at_;
            else if (!(c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))))
                return;
        }
    }

    std::string name() {
        const std::size_t begin = at_;
        while (is_name(peek())) ++at_;
        if (begin == at_) refuse("expected the name of a rule");
        return std::string(text_.substr(begin, at_ - begin));
    }

    std::int32_t rule_of(const std::string& name) {
        const auto [found, fresh] = ids_.emplace(name, 0);
        if (fresh) found->second = new_rule(name);
        return found->second;
    }

    std::int32_t new_rule(std::string name = {}) {
        const std::int32_t rule = builder_.add_rule();
        names_.resize(static_cast<std::size_t>(rule) + 1);
        defined_.resize(static_cast<std::size_t>(rule) + 1);
        names_.back() = std::move(name);
        return rule;
    }

    void rule() {
        const std::string word = name();
        const std::int32_t id = rule_of(word);
        skip(false);
        if (!take("::=")) refuse("expected ::= behind the name of a rule");
        if (defined_[static_cast<std::size_t>(id)]) refuse("rule " + word + " is defined twice");
        defined_[static_cast<std::size_t>(id)] = true;
        skip(true);
        alternatives(id, false);
        if (at_ < text_.size() && peek() != '\n' && peek() != '\r') refuse("expected the end of the rule");
    }

    void alternatives(std::int32_t rule, bool nested) {
        if (++depth_ > 256) refuse("groups are nested too deep");
        do {
            skip(true);
            builder_.add_alternative(rule, sequence(nested));
        } while (take("|"));
        --depth_;
    }

    Sequence sequence(bool nested) {
        Sequence all;
        for (skip(nested);; skip(nested)) {
            const std::optional<Sequence> one = item();
            if (!one) return all;
            const Sequence times = repetition(*one, nested);
            builder_.reserve(all.size() + times.size());
            all.insert(all.end(), times.begin(), times.end());
        }
    }

    std::optional<Sequence> item() {
        const char c = peek();
        if (c == '"') return literal();
        if (c == '[') return character_class();
        if (take(".")) return any_character();
        if (take("(")) {
            const std::int32_t group = new_rule();
            alternatives(group, true);
            skip(true);
            if (!take(")")) refuse("expected ) at the end of a group");
            return Sequence{RuleBuilder::reference(group)};
        }
        if (is_name(c)) return Sequence{RuleBuilder::reference(rule_of(name()))};
        return {};
    }

    Sequence repetition(const Sequence& what, bool nested) {
        skip(nested);
        if (take("*")) return repeated(what, 0, -1);
        if (take("+")) return repeated(what, 1, -1);
        if (take("?")) return repeated(what, 0, 1);
        if (!take("{")) return what;
        skip(true);
        const std::int64_t least = peek() == ',' ? 0 : number();
        std::int64_t most = least;
        skip(true);
        if (take(",")) {
            skip(true);
            most = peek() == '}' ? -1 : number();
            skip(true);
        }
        if (!take("}")) refuse("expected } at the end of a repetition");
        if (most >= 0 && most < least) refuse("a repetition's second number is below its first");
        return repeated(what, least, most);
    }

    Sequence repeated(const Sequence& what, std::int64_t least, std::int64_t most) {
        const Sequence times = builder_.repeated(what, least, most);
        sync();
        return times;
    }

    /// Rules that the builder made have no names.
    void sync() { names_.resize(builder_.rules()), defined_.resize(builder_.rules()); }

    std::int64_t number() {
        std::int64_t value = 0;
        const char* begin = text_.data() + at_;
        const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
        if (error != std::errc{} || value < 0 || value > kMostRepetitions)
            refuse(fmt::format("expected a number of repetitions up to {}", kMostRepetitions));
        at_ += static_cast<std::size_t>(end - begin);
        return value;
    }

    Sequence literal() {
        ++at_;
        std::string bytes;
        while (peek() != '"') append(character(), bytes);
        ++at_;
        return RuleBuilder::literal(bytes);
    }

    Sequence any_character() {
        Sequence one = builder_.one_of({}, true);
        sync();
        return one;
    }

    Sequence character_class() {
        ++at_;
        const bool negated = take("^");
        std::vector<std::pair<char32_t, char32_t>> ranges;
        while (peek() != ']') {
            const char32_t low = character();
            char32_t high = low;
            if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
                ++at_;
                high = character();
            }
            if (high < low) refuse("a range ends before it begins");
            ranges.emplace_back(low, high);
        }
        ++at_;
        Sequence one = builder_.one_of(std::move(ranges), negated);
        if (builder_.empty(one)) refuse("no character is of this class; expected at least one");
        sync();
        return one;
    }

    /// One character of a literal or class, escapes resolved.
    char32_t character() {
        if (at_ >= text_.size()) refuse("the text ends inside a literal or class");
        if (!take("\\")) return plain_character();
        const char c = peek();
        ++at_;
        switch (c) {
            case 'n': return '\n';
            case 't': return '\t';
            case 'r': return '\r';
            case 'x': return hex(2);
            case 'u': return hex(4);
            case 'U': return hex(8);
            case '\\':
            case '"':
            case '[':
            case ']':
            case '-':
            case '^': return static_cast<char32_t>(c);
            default: refuse("unknown escape; expected \\n \\t \\r \\x \\u \\U \\\\ \\\" \\[ \\] \\- or \\^");
        }
    }

    char32_t plain_character() {
        const auto byte = static_cast<unsigned char>(text_[at_++]);
        const int more = byte < 0x80 ? 0 : byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
        if (byte >= 0x80 && byte < 0xC2) refuse("no valid UTF-8");
        char32_t c = more == 0 ? byte : byte & (0x3FU >> more);
        for (int i = 0; i < more; ++i) {
            if ((static_cast<unsigned char>(peek()) & 0xC0) != 0x80) refuse("no valid UTF-8");
            c = c << 6 | (static_cast<unsigned char>(text_[at_++]) & 0x3F);
        }
        if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) refuse("no character has this number");
        return c;
    }

    char32_t hex(std::size_t digits) {
        std::uint32_t value = 0;
        const std::string_view word = text_.substr(at_, digits);
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, 16);
        if (word.size() < digits || error != std::errc{} || end != word.data() + digits)
            refuse(fmt::format("expected {} hexadecimal digits", digits));
        if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) refuse("no character has this number");
        at_ += digits;
        return value;
    }

    static void append(char32_t c, std::string& bytes) {
        if (c < 0x80) {
            bytes += static_cast<char>(c);
            return;
        }
        const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        const unsigned mark = more == 1 ? 0xC0U : more == 2 ? 0xE0U : 0xF0U;
        bytes += static_cast<char>(mark | (c >> (6 * more)));
        for (int i = more - 1; i >= 0; --i) bytes += static_cast<char>(0x80U | ((c >> (6 * i)) & 0x3FU));
    }

    std::string_view text_;
    std::size_t at_ = 0;
    int depth_ = 0;
    RuleBuilder builder_;
    std::unordered_map<std::string, std::int32_t> ids_;
    std::vector<std::string> names_;  ///< [rule], empty for those without
    std::vector<bool> defined_;
};

}  // namespace

Grammar Grammar::parse(std::string_view gbnf) {
    return Grammar(std::make_shared<const Rules>(GbnfParser(gbnf).parse()));
}

Grammar Grammar::json_schema(std::string_view schema) { return parse(json_schema_to_gbnf(schema)); }

}  // namespace outrider
