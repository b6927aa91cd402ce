// The exact law of any code that asks chance through Dice: the code runs once for every combination of outcomes.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include <outrider/accept/rules/detail/accept_walk.hpp>
#include <outrider/accept/rules/dice.hpp>
#include <outrider/core/detail/rng.hpp>
#include <outrider/core/types.hpp>
#include <outrider/tree/token_tree.hpp>

namespace outrider::enumeration {

using Text = std::vector<TokenId>;
using Law = std::map<Text, double>;

/// Answers every question with each possible outcome in turn, depth first. Outcomes of probability zero never come.
class AllOutcomes {
public:
    bool accept(double probability) {
        const double yes = std::min(probability, 1.0);
        return choose({yes, 1.0 - yes}) == 0;
    }
    std::size_t pick(std::span<const double> weights) {
        double sum = 0;
        for (const double w : weights) sum += w;
        std::vector<double> chances(weights.begin(), weights.end());
        for (double& c : chances) c /= sum;
        return choose(std::move(chances));
    }

    /// Probability of the outcomes so far in this run.
    [[nodiscard]] double weight() const { return weight_; }

    /// Runs `body(dice)` for every combination.
    template <typename F>
    static void for_each(F&& body) {
        AllOutcomes dice;
        do {
            dice.next_ = 0;
            dice.weight_ = 1;
            body(dice);
        } while (dice.advance());
    }

private:
    struct Question {
        std::vector<double> chances;
        std::size_t answer;
    };

    static std::size_t possible(const Question& q, std::size_t from) {
        while (from < q.chances.size() && !(q.chances[from] > 0)) ++from;
        return from;
    }

    std::size_t choose(std::vector<double> chances) {
        if (next_ == tape_.size()) {
            tape_.push_back({std::move(chances), 0});
            tape_.back().answer = possible(tape_.back(), 0);
        }
        const Question& q = tape_[next_++];
        weight_ *= q.chances.at(q.answer);
        return q.answer;
    }

    bool advance() {
        while (!tape_.empty()) {
            Question& q = tape_.back();
            q.answer = possible(q, q.answer + 1);
            if (q.answer < q.chances.size()) return true;
            tape_.pop_back();
        }
        return false;
    }

    std::vector<Question> tape_;
    std::size_t next_ = 0;
    double weight_ = 1;
};

static_assert(Dice<AllOutcomes>);

/// One random distribution over V tokens for every text; some entries are zero, and `missing` of the mass may be too.
class Table {
public:
    Table(std::uint64_t seed, std::size_t vocabulary, double zeros, double missing = 0, double flatness = 0.05)
        : seed_(seed), vocabulary_(vocabulary), zeros_(zeros), missing_(missing), flatness_(flatness) {}

    [[nodiscard]] std::size_t vocabulary() const { return vocabulary_; }

    [[nodiscard]] std::vector<double> operator()(std::span<const TokenId> text) const {
        std::uint64_t hash = mix64(seed_);
        for (const TokenId t : text) hash = mix64(hash ^ static_cast<std::uint64_t>(t + 1));
        const RandomKey key(hash, 0, 0, 97);
        std::vector<double> p(vocabulary_);
        const std::size_t sure = key.bits(999) % vocabulary_;  // one entry is never zero
        double sum = 0;
        for (std::size_t c = 0; c < p.size(); ++c)
            sum += p[c] =
                c != sure && key.uniform(100 + c) < zeros_ ? 0.0 : flatness_ + key.uniform(c) * key.uniform(c + 50);
        const double mass = 1 - missing_ * key.uniform(200);
        for (double& x : p) x *= mass / sum;
        return p;
    }

    /// Adds the law of the completion of `text` to `length` tokens.
    void complete(const Text& text, std::size_t length, double weight, Law& out) const {
        if (weight == 0) return;
        if (text.size() == length) {
            out[text] += weight;
            return;
        }
        const auto p = (*this)(text);
        for (std::size_t c = 0; c < p.size(); ++c) {
            Text next = text;
            next.push_back(static_cast<TokenId>(c));
            complete(next, length, weight * p[c], out);
        }
    }

private:
    std::uint64_t seed_;
    std::size_t vocabulary_;
    double zeros_, missing_, flatness_;
};

/// The tokens below the root down to `node`.
[[nodiscard]] inline Text text_of(const TokenTree& tree, NodeIndex node) {
    Text text;
    for (; node > 0; node = tree.parent(node)) text.insert(text.begin(), tree.token(node));
    return text;
}

[[nodiscard]] inline double total_variation(const Law& a, const Law& b) {
    double sum = 0;
    for (const auto& [key, p] : a) sum += std::abs(p - (b.contains(key) ? b.at(key) : 0.0));
    for (const auto& [key, p] : b)
        if (!a.contains(key)) sum += p;
    return sum / 2;
}

/// What a rule does to a target.
struct Outcome {
    double distance = 0;  ///< total variation between the law of the first `length` tokens and the target's
    double accepted = 0;  ///< expected nodes accepted
    double mass = 0;      ///< sum of all outcomes' probabilities
};

/// `round(dice)` drafts and accepts, and returns the tree and what was accepted. Texts shorter than `length` are
/// completed by the target itself.
template <typename Round>
[[nodiscard]] Outcome exact(const Table& target, std::size_t length, Round&& round) {
    Outcome result;
    Law law, expected;
    AllOutcomes::for_each([&](AllOutcomes& dice) {
        const auto [tree, acceptance] = round(dice);
        Text text = acceptance.path.empty() ? Text{} : text_of(tree, acceptance.path.back());
        result.accepted += dice.weight() * static_cast<double>(text.size());
        text.push_back(acceptance.pending);
        result.mass += dice.weight();
        if (text.size() > length) text.resize(length);
        target.complete(text, length, dice.weight(), law);
    });
    target.complete({}, length, 1.0, expected);
    result.distance = total_variation(law, expected);
    return result;
}

}  // namespace outrider::enumeration
