#include <algorithm>
#include <limits>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include <outrider/core/error.hpp>
#include <outrider/text/grammar.hpp>

#include "automaton.hpp"

namespace outrider {
namespace {

constexpr std::size_t kHalf = GrammarConstraint::kMostBytes / 2;  // of masks, and of an automaton
constexpr std::size_t kMostForced = 256;                          // bytes drafted ahead

using Mask = std::vector<std::uint64_t>;

}  // namespace

/// What requests share: the machine and the masks of its states. Texts of deep nesting make ever new states; when they
/// take too much memory, a fresh machine takes its place, and running texts go over to it with their next token.
struct GrammarConstraint::Shared {
    struct Machine {
        explicit Machine(std::shared_ptr<const Grammar::Rules> rules) : automaton(std::move(rules)) {}
        std::mutex mutex;
        GrammarAutomaton automaton;
        std::unordered_map<GrammarAutomaton::StateId, Mask> masks;

        [[nodiscard]] GrammarAutomaton::StateId after(GrammarAutomaton::StateId state, std::string_view bytes) {
            for (const char byte : bytes) {
                if (state == GrammarAutomaton::kDead) break;
                state = automaton.next(state, static_cast<std::uint8_t>(byte));
            }
            return state;
        }
        [[nodiscard]] const Mask& mask(GrammarAutomaton::StateId state, const TokenTrie& tokens);
        [[nodiscard]] std::size_t mask_bytes() const {
            return masks.empty() ? 0 : masks.size() * (masks.begin()->second.size() * sizeof(std::uint64_t) + 64);
        }
        [[nodiscard]] bool full() const { return automaton.bytes() > kHalf; }
    };
    struct Place {
        std::shared_ptr<Machine> machine;
        std::shared_ptr<const std::vector<TokenId>> end_ids;
        GrammarAutomaton::StateId state = GrammarAutomaton::kDead;

        [[nodiscard]] bool is_end(TokenId token) const { return std::ranges::find(*end_ids, token) != end_ids->end(); }
    };

    /// The machine for the next token; another one where that is full. Locks.
    [[nodiscard]] std::shared_ptr<Machine> fresh_machine() {
        const std::scoped_lock lock(mutex);
        bool full = machine == nullptr;
        if (!full) {
            const std::scoped_lock machine_lock(machine->mutex);
            full = machine->full();
        }
        if (full) machine = std::make_shared<Machine>(rules);
        return machine;
    }
    void move_over(Place& place);

    static const Place& place(const State& state) { return *static_cast<const Place*>(state.get()); }

    std::shared_ptr<const Grammar::Rules> rules;
    std::shared_ptr<const TokenTrie> tokens;
    std::mutex mutex;
    std::shared_ptr<Machine> machine;
};

const Mask& GrammarConstraint::Shared::Machine::mask(GrammarAutomaton::StateId state, const TokenTrie& tokens) {
    if (const auto known = masks.find(state); known != masks.end()) return known->second;
    const auto words = static_cast<std::size_t>(tokens.vocabulary() + 63) / 64;
    if (mask_bytes() + words * sizeof(std::uint64_t) > kHalf) masks.clear();
    Mask& mask = masks[state];
    mask.resize(words);
    const std::vector<TokenTrie::Node>& nodes = tokens.nodes();
    std::vector<GrammarAutomaton::StateId> path{state};  // [depth]
    for (std::size_t i = 1; i < nodes.size();) {
        const TokenTrie::Node& node = nodes[i];
        path.resize(static_cast<std::size_t>(node.depth));
        const GrammarAutomaton::StateId here = automaton.next(path.back(), node.byte);
        if (here == GrammarAutomaton::kDead) {
            i = static_cast<std::size_t>(node.end);
            continue;
        }
        for (TokenId token = node.token; token != kNoToken; token = tokens.same(token))
            mask[static_cast<std::size_t>(token) / 64] |= std::uint64_t{1} << (static_cast<std::size_t>(token) % 64);
        path.push_back(here);
        ++i;
    }
    return mask;
}

void GrammarConstraint::Shared::move_over(Place& place) {
    {
        const std::scoped_lock lock(place.machine->mutex);
        if (!place.machine->full()) return;
    }
    const std::shared_ptr<Machine> to = fresh_machine();
    if (to == place.machine) return;
    const std::scoped_lock both(place.machine->mutex, to->mutex);
    place.state = to->automaton.adopt(place.machine->automaton, place.state);
    place.machine = to;
}

GrammarConstraint::GrammarConstraint(const Grammar& grammar, std::shared_ptr<const TokenTrie> tokens)
    : shared_(std::make_unique<Shared>()) {
    require(tokens != nullptr, "GrammarConstraint: no tokens; expected a TokenTrie of the target's tokenizer");
    shared_->rules = grammar.rules();
    shared_->tokens = std::move(tokens);
}

GrammarConstraint::~GrammarConstraint() = default;

Constraint::State GrammarConstraint::begin(const ConstraintScope& scope) const {
    require(scope.vocabulary == shared_->tokens->vocabulary(),
            "GrammarConstraint: its tokens are {}, the target's vocabulary is {}; make the TokenTrie of this target",
            shared_->tokens->vocabulary(), scope.vocabulary);
    std::shared_ptr<Shared::Machine> machine = shared_->fresh_machine();
    const GrammarAutomaton::StateId start = machine->automaton.start();  // which never changes
    return std::make_shared<const Shared::Place>(
        Shared::Place{std::move(machine), std::make_shared<const std::vector<TokenId>>(scope.end_ids), start});
}

std::size_t GrammarConstraint::bytes() const {
    const std::scoped_lock lock(shared_->mutex);
    if (shared_->machine == nullptr) return 0;
    const std::scoped_lock machine_lock(shared_->machine->mutex);
    return shared_->machine->automaton.bytes() + shared_->machine->mask_bytes();
}

Constraint::State GrammarConstraint::next(const State& state, TokenId token) const {
    Shared::Place place = Shared::place(state);
    shared_->move_over(place);
    const std::scoped_lock lock(place.machine->mutex);
    const std::string& bytes = shared_->tokens->bytes(token);
    place.state = bytes.empty() ? GrammarAutomaton::kDead : place.machine->after(place.state, bytes);
    require(place.state != GrammarAutomaton::kDead, "GrammarConstraint: token {} does not follow by the grammar",
            token);
    return std::make_shared<const Shared::Place>(std::move(place));
}

void GrammarConstraint::mask(const State& state, std::span<float> logits) const {
    const Shared::Place& place = Shared::place(state);
    const std::scoped_lock lock(place.machine->mutex);
    const Mask& mask = place.machine->mask(place.state, *shared_->tokens);
    const bool may_end = place.machine->automaton.accepts(place.state);
    std::vector<float> ends;
    for (const TokenId token : *place.end_ids) ends.push_back(logits[static_cast<std::size_t>(token)]);
    for (std::size_t token = 0; token < logits.size(); ++token)
        if ((mask[token / 64] >> (token % 64) & 1) == 0) logits[token] = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < ends.size(); ++i)
        logits[static_cast<std::size_t>((*place.end_ids)[i])] =
            may_end ? ends[i] : -std::numeric_limits<float>::infinity();
}

bool GrammarConstraint::allows(const State& state, TokenId token) const {
    const Shared::Place& place = Shared::place(state);
    const std::scoped_lock lock(place.machine->mutex);
    if (place.is_end(token)) return place.machine->automaton.accepts(place.state);
    const std::string& bytes = shared_->tokens->bytes(token);
    return !bytes.empty() && place.machine->after(place.state, bytes) != GrammarAutomaton::kDead;
}

std::vector<TokenId> GrammarConstraint::expected(const State& state) const {
    const Shared::Place& place = Shared::place(state);
    const std::scoped_lock lock(place.machine->mutex);
    std::string bytes;
    GrammarAutomaton::StateId at = place.state;
    for (int only = place.machine->automaton.only_byte(at); only >= 0 && bytes.size() < kMostForced;
         only = place.machine->automaton.only_byte(at)) {
        bytes += static_cast<char>(only);
        at = place.machine->automaton.next(at, static_cast<std::uint8_t>(only));
    }
    return shared_->tokens->cut(bytes);
}

bool GrammarConstraint::finished(const State& state) const {
    const Shared::Place& place = Shared::place(state);
    const std::scoped_lock lock(place.machine->mutex);
    return place.machine->automaton.finished(place.state);
}

}  // namespace outrider
