#include "rules.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include <outrider/core/error.hpp>

namespace outrider {
namespace {

using Kind = GrammarSymbol::Kind;
using ByteRanges = std::vector<std::pair<std::uint8_t, std::uint8_t>>;

constexpr char32_t kLast = 0x10FFFF;

std::vector<std::uint8_t> utf8(char32_t c) {
    if (c < 0x80) return {static_cast<std::uint8_t>(c)};
    std::vector<std::uint8_t> bytes;
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    const std::array<int, 4> marks{0, 0xC0, 0xE0, 0xF0};
    bytes.push_back(
        static_cast<std::uint8_t>(static_cast<char32_t>(marks[static_cast<std::size_t>(more)]) | (c >> (6 * more))));
    for (int i = more - 1; i >= 0; --i) bytes.push_back(static_cast<std::uint8_t>(0x80 | ((c >> (6 * i)) & 0x3F)));
    return bytes;
}

/// A range of code points as ranges of bytes, sequence by sequence (as RE2 does): split until only trailing bytes that
/// range over all values differ.
void split(char32_t low, char32_t high, std::vector<ByteRanges>& out) {
    constexpr std::array<char32_t, 4> kBorders{0x7F, 0x7FF, 0xD7FF, 0xFFFF};  // surrogates are no characters
    if (low >= 0xD800 && low <= 0xDFFF) low = 0xE000;
    if (high >= 0xD800 && high <= 0xDFFF) high = 0xD7FF;
    if (low > high) return;
    for (const char32_t border : kBorders)
        if (low <= border && border < high) return split(low, border, out), split(border + 1, high, out);
    for (int i = 1; i < static_cast<int>(utf8(low).size()); ++i) {
        const char32_t trail = (char32_t{1} << (6 * i)) - 1;
        if ((low & ~trail) == (high & ~trail)) continue;
        if ((low & trail) != 0) return split(low, low | trail, out), split((low | trail) + 1, high, out);
        if ((high & trail) != trail) return split(low, (high & ~trail) - 1, out), split(high & ~trail, high, out);
    }
    const std::vector<std::uint8_t> first = utf8(low), last = utf8(high);
    ByteRanges& ranges = out.emplace_back();
    for (std::size_t i = 0; i < first.size(); ++i) ranges.emplace_back(first[i], last[i]);
}

}  // namespace

std::int32_t RuleBuilder::add_rule() {
    rules_.emplace_back();
    return static_cast<std::int32_t>(rules_.size()) - 1;
}

void RuleBuilder::reserve(std::size_t symbols) const {
    require(
        symbols <= kMostSymbols - std::min(symbols_, kMostSymbols), ErrorKind::not_supported,
        "grammar: more than {} symbols, repetitions written out; expected fewer: shorten its lists, or its repetitions",
        kMostSymbols);
}

void RuleBuilder::add_alternative(std::int32_t rule, Sequence sequence) {
    std::vector<Sequence>& alternatives = rules_[static_cast<std::size_t>(rule)];
    require(alternatives.size() < kMostAlternatives, ErrorKind::not_supported,
            "grammar: a rule (or the enum of a schema) has more than {} alternatives; expected fewer: group those that "
            "begin alike, or allow any text",
            kMostAlternatives);
    reserve(sequence.size() + 1);
    symbols_ += sequence.size() + 1;
    alternatives.push_back(std::move(sequence));
}

RuleBuilder::Sequence RuleBuilder::literal(std::string_view bytes) {
    Sequence sequence;
    for (const char c : bytes) {
        const auto byte = static_cast<std::uint8_t>(c);
        sequence.push_back({.kind = Kind::bytes, .low = byte, .high = byte});
    }
    return sequence;
}

RuleBuilder::Sequence RuleBuilder::one_of(std::vector<std::pair<char32_t, char32_t>> ranges, bool negated) {
    std::ranges::sort(ranges);
    std::vector<std::pair<char32_t, char32_t>> wanted;
    char32_t next = 0;
    for (const auto& [low, high] : ranges) {
        if (negated && low > next) wanted.emplace_back(next, low - 1);
        next = std::max(next, static_cast<char32_t>(high + 1));
    }
    if (negated && next <= kLast) wanted.emplace_back(next, kLast);
    if (!negated) wanted = std::move(ranges);
    std::vector<ByteRanges> sequences;
    for (const auto& [low, high] : wanted) split(low, high, sequences);
    const std::int32_t rule = add_rule();
    for (const ByteRanges& bytes : sequences) {
        Sequence sequence;
        for (const auto& [low, high] : bytes) sequence.push_back({.kind = Kind::bytes, .low = low, .high = high});
        add_alternative(rule, std::move(sequence));
    }
    return {reference(rule)};
}

RuleBuilder::Sequence RuleBuilder::repeated(const Sequence& what, std::int64_t least, std::int64_t most) {
    reserve(what.size() * static_cast<std::size_t>(std::max(least, most)));
    Sequence all;
    for (std::int64_t i = 0; i < least; ++i) all.insert(all.end(), what.begin(), what.end());
    if (most < 0) {
        const std::int32_t more = add_rule();
        Sequence again = what;
        again.push_back(reference(more));
        add_alternative(more, std::move(again));
        add_alternative(more, {});
        all.push_back(reference(more));
        return all;
    }
    std::int32_t inner = -1;  // (what (what (what)?)?)?
    for (std::int64_t i = least; i < most; ++i) {
        const std::int32_t maybe = add_rule();
        Sequence once = what;
        if (inner >= 0) once.push_back(reference(inner));
        add_alternative(maybe, std::move(once));
        add_alternative(maybe, {});
        inner = maybe;
    }
    if (inner >= 0) all.push_back(reference(inner));
    return all;
}

// Each rule is looked at again only when a rule that it names has been marked, so that long chains cost no more.
std::vector<bool> RuleBuilder::closed_under(bool bytes_too) const {
    struct Open {
        std::size_t rule;
        std::size_t missing;  // places of rules that are not marked yet
    };
    std::vector<Open> open;
    std::vector<std::vector<std::size_t>> waiting(rules_.size());  // alternatives that name a rule
    std::vector<std::size_t> ready;
    for (std::size_t r = 0; r < rules_.size(); ++r)
        for (const Sequence& sequence : rules_[r]) {
            if (!bytes_too && std::ranges::any_of(sequence, [](auto& s) { return s.kind == Kind::bytes; })) continue;
            open.push_back({r, 0});
            for (const GrammarSymbol& symbol : sequence)
                if (symbol.kind == Kind::rule) {
                    waiting[static_cast<std::size_t>(symbol.rule)].push_back(open.size() - 1);
                    ++open.back().missing;
                }
            if (open.back().missing == 0) ready.push_back(r);
        }
    std::vector<bool> marked(rules_.size());
    while (!ready.empty()) {
        const std::size_t rule = ready.back();
        ready.pop_back();
        if (marked[rule]) continue;
        marked[rule] = true;
        for (const std::size_t each : waiting[rule])
            if (--open[each].missing == 0) ready.push_back(open[each].rule);
    }
    return marked;
}

void RuleBuilder::check_left_recursion(const std::vector<std::string>& names) const {
    const std::vector<bool> empty = nullable();
    std::vector<std::vector<std::size_t>> begins(rules_.size());  // rules that a rule can begin with
    for (std::size_t r = 0; r < rules_.size(); ++r)
        for (const Sequence& sequence : rules_[r])
            for (const GrammarSymbol& symbol : sequence) {
                if (symbol.kind != Kind::rule) break;
                begins[r].push_back(static_cast<std::size_t>(symbol.rule));
                if (!empty[static_cast<std::size_t>(symbol.rule)]) break;
            }
    enum class Mark : std::uint8_t { fresh, open, done };
    std::vector<Mark> marks(rules_.size(), Mark::fresh);
    std::vector<std::pair<std::size_t, std::size_t>> walk;  // rule, next of its beginnings
    for (std::size_t start = 0; start < rules_.size(); ++start) {
        if (marks[start] == Mark::fresh) walk.emplace_back(start, 0), marks[start] = Mark::open;
        while (!walk.empty()) {
            auto& [rule, next] = walk.back();
            if (next == begins[rule].size()) {
                marks[rule] = Mark::done;
                walk.pop_back();
                continue;
            }
            const std::size_t to = begins[rule][next++];
            require(
                marks[to] != Mark::open,
                "grammar: {} can begin with itself (left recursion, or a repetition of what may be empty); write it "
                "as a repetition of something that is not empty",
                to < names.size() && !names[to].empty() ? "rule " + names[to] : std::string("a repetition"));
            if (marks[to] == Mark::fresh) marks[to] = Mark::open, walk.emplace_back(to, 0);
        }
    }
}

Grammar::Rules RuleBuilder::build(std::int32_t root, const std::vector<std::string>& names) && {
    check_left_recursion(names);
    const std::vector<bool> ends = productive();
    require(ends[static_cast<std::size_t>(root)],
            "grammar: no text ends by it: every alternative of root leads back to a rule that needs itself, or to a "
            "class without characters; give one a way out");
    Grammar::Rules built;
    built.root = root;
    for (std::vector<Sequence>& alternatives : rules_) {
        std::vector<std::int32_t>& starts = built.starts.emplace_back();
        for (Sequence& sequence : alternatives) {
            if (std::ranges::any_of(sequence, [&](const GrammarSymbol& symbol) {
                    return symbol.kind == Kind::rule && !ends[static_cast<std::size_t>(symbol.rule)];
                }))
                continue;
            starts.push_back(static_cast<std::int32_t>(built.symbols.size()));
            built.symbols.insert(built.symbols.end(), sequence.begin(), sequence.end());
            built.symbols.emplace_back();
        }
    }
    return built;
}

}  // namespace outrider
