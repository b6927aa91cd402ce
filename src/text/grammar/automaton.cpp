#include "automaton.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace outrider {

using Kind = GrammarSymbol::Kind;

GrammarAutomaton::GrammarAutomaton(std::shared_ptr<const Grammar::Rules> rules) : rules_(std::move(rules)) {
    find_classes();
    State first;
    for (const std::int32_t start : rules_->starts[static_cast<std::size_t>(rules_->root)]) expand(start, kNone, first);
    start_ = intern(std::move(first));
}

void GrammarAutomaton::find_classes() {
    std::array<bool, 257> begins{};
    for (const GrammarSymbol& each : rules_->symbols)
        if (each.kind == Kind::bytes) begins[each.low] = begins[std::size_t{each.high} + 1] = true;
    for (std::size_t byte = 1; byte < 256; ++byte) {
        classes_ += begins[byte] ? 1 : 0;
        class_of_[byte] = static_cast<std::uint8_t>(classes_ - 1);
    }
}

std::int32_t GrammarAutomaton::stack(std::int32_t position, std::int32_t below) {
    const std::uint64_t key =
        std::uint64_t{static_cast<std::uint32_t>(position)} << 32 | static_cast<std::uint32_t>(below);
    const auto [found, fresh] = stack_ids_.emplace(key, static_cast<std::int32_t>(stacks_.size()));
    if (fresh) {
        stacks_.push_back({position, below});
        bytes_ += sizeof(Stack) + 48;  // with its place among the ids
    }
    return found->second;
}

// Down to the bytes that may come next, through calls and ends of rules. No rule begins with itself, so it ends.
void GrammarAutomaton::expand(std::int32_t position, std::int32_t below, State& state) {
    std::set<std::pair<std::int32_t, std::int32_t>> seen;
    std::vector<std::pair<std::int32_t, std::int32_t>> open{{position, below}};
    while (!open.empty()) {
        const auto [at, under] = open.back();
        open.pop_back();
        if (!seen.emplace(at, under).second) continue;
        const GrammarSymbol& here = symbol(at);
        if (here.kind == Kind::bytes) {
            state.stacks.push_back(stack(at, under));
        } else if (here.kind == Kind::end) {
            if (under == kNone)
                state.accepts = true;
            else
                open.emplace_back(stacks_[static_cast<std::size_t>(under)].position,
                                  stacks_[static_cast<std::size_t>(under)].below);
        } else {
            const bool last = symbol(at + 1).kind == Kind::end;
            const std::int32_t back = last ? under : stack(at + 1, under);
            for (const std::int32_t start : rules_->starts[static_cast<std::size_t>(here.rule)])
                open.emplace_back(start, back);
        }
    }
}

GrammarAutomaton::StateId GrammarAutomaton::intern(State state) {
    std::ranges::sort(state.stacks);
    const auto equal = std::ranges::unique(state.stacks);
    state.stacks.erase(equal.begin(), equal.end());
    if (state.stacks.empty() && !state.accepts) return kDead;
    const auto [found, fresh] =
        state_ids_.emplace(std::pair(state.accepts, state.stacks), static_cast<StateId>(states_.size()));
    if (fresh) {
        bytes_ += sizeof(State) + 96 + 2 * sizeof(std::int32_t) * state.stacks.size();
        states_.push_back(std::move(state));
    }
    return found->second;
}

GrammarAutomaton::StateId GrammarAutomaton::adopt(const GrammarAutomaton& other, StateId state) {
    const State& from = other.states_[static_cast<std::size_t>(state)];
    State own;
    own.accepts = from.accepts;
    for (std::int32_t each : from.stacks) {
        std::vector<std::int32_t> positions;  // from the top down
        for (; each != kNone; each = other.stacks_[static_cast<std::size_t>(each)].below)
            positions.push_back(other.stacks_[static_cast<std::size_t>(each)].position);
        std::int32_t below = kNone;
        for (auto at = positions.rbegin(); at != positions.rend(); ++at) below = stack(*at, below);
        own.stacks.push_back(below);
    }
    return intern(std::move(own));
}

GrammarAutomaton::StateId GrammarAutomaton::next(StateId from, std::uint8_t byte) {
    auto& after = states_[static_cast<std::size_t>(from)].after;
    if (!after) {
        after = std::make_unique<StateId[]>(classes_);
        std::fill_n(after.get(), classes_, kUnknown);
        bytes_ += classes_ * sizeof(StateId) + 16;
    }
    const std::size_t kind = class_of_[byte];
    if (const StateId known = after[kind]; known != kUnknown) return known;
    State reached;
    for (std::size_t i = 0; i < states_[static_cast<std::size_t>(from)].stacks.size(); ++i) {
        const Stack at = stacks_[static_cast<std::size_t>(states_[static_cast<std::size_t>(from)].stacks[i])];
        const GrammarSymbol& here = symbol(at.position);
        if (here.low <= byte && byte <= here.high) expand(at.position + 1, at.below, reached);
    }
    const StateId to = intern(std::move(reached));
    states_[static_cast<std::size_t>(from)].after[kind] = to;
    return to;
}

int GrammarAutomaton::only_byte(StateId state) const {
    const State& here = states_[static_cast<std::size_t>(state)];
    if (here.accepts || here.stacks.empty()) return -1;
    int only = -1;
    for (const std::int32_t each : here.stacks) {
        const GrammarSymbol& bytes = symbol(stacks_[static_cast<std::size_t>(each)].position);
        if (bytes.low != bytes.high || (only >= 0 && only != bytes.low)) return -1;
        only = bytes.low;
    }
    return only;
}

}  // namespace outrider
