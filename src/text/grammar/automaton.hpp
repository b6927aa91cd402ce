// A grammar as a machine over bytes: which bytes may follow, and what it is after them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "rules.hpp"

namespace outrider {

/// A pushdown automaton that follows all derivations at once. Its states are sets of stacks; equal sets are one state,
/// and what a byte does to a state is remembered, so that frequent states cost a look-up. A call at the end of an
/// alternative takes no room on the stack: repetitions do not grow it.
class GrammarAutomaton {
public:
    using StateId = std::int32_t;
    static constexpr StateId kDead = -1;

    explicit GrammarAutomaton(std::shared_ptr<const Grammar::Rules> rules);

    [[nodiscard]] StateId start() const noexcept { return start_; }
    /// kDead: the byte may not follow.
    [[nodiscard]] StateId next(StateId state, std::uint8_t byte);
    /// Whether the text may end here.
    [[nodiscard]] bool accepts(StateId state) const { return states_[static_cast<std::size_t>(state)].accepts; }
    /// Whether no byte may follow.
    [[nodiscard]] bool finished(StateId state) const { return states_[static_cast<std::size_t>(state)].stacks.empty(); }
    /// The only byte that may follow; -1: there is none, or more than one, or the text may end.
    [[nodiscard]] int only_byte(StateId state) const;

    /// A state of another automaton of the same rules, as one of this.
    [[nodiscard]] StateId adopt(const GrammarAutomaton& other, StateId state);

    /// Memory taken by what it has worked out, about.
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

private:
    /// Where a derivation stands: the symbol to read, and what follows the rule that it stands in.
    struct Stack {
        std::int32_t position = 0;
        std::int32_t below = kNone;  ///< a stack
    };
    struct State {
        std::vector<std::int32_t> stacks;  ///< ascending; each stands before bytes
        bool accepts = false;
        std::unique_ptr<StateId[]> after;  ///< [classes]
    };
    static constexpr std::int32_t kNone = -1;
    static constexpr StateId kUnknown = -2;

    [[nodiscard]] std::int32_t stack(std::int32_t position, std::int32_t below);
    void find_classes();
    void expand(std::int32_t position, std::int32_t below, State& state);
    [[nodiscard]] StateId intern(State state);
    [[nodiscard]] const GrammarSymbol& symbol(std::int32_t position) const {
        return rules_->symbols[static_cast<std::size_t>(position)];
    }

    std::shared_ptr<const Grammar::Rules> rules_;
    std::vector<Stack> stacks_;
    std::unordered_map<std::uint64_t, std::int32_t> stack_ids_;
    std::vector<State> states_;
    std::map<std::pair<bool, std::vector<std::int32_t>>, StateId> state_ids_;
    StateId start_ = kDead;
    std::array<std::uint8_t, 256> class_of_{};  ///< bytes that no symbol tells apart are one class
    std::size_t classes_ = 1, bytes_ = 0;
};

}  // namespace outrider
