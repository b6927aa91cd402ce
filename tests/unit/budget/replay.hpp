// Rounds that real machines recorded, and how a budget would have done with them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <outrider/budget/detail/part.hpp>
#include <outrider/budget/detail/tree_budget.hpp>

namespace outrider::replay {

using budget::DraftPlan;
using budget::RoundReport;
using budget::TreeBudget;

/// One text position: the drafter was run, some of its likeliest nodes were verified, and one token was kept.
struct Position {
    std::int64_t nodes = 0;          ///< verified
    double draft = 0, pass = 0;      ///< seconds
    std::vector<NodeIndex> parents;  ///< of the drafted nodes, likeliest path first; 0 is the root
    std::vector<bool> hit;           ///< whether a node lies on the text
    std::vector<double> stated;      ///< its probability given its parent
};
using Text = std::vector<Position>;  ///< of one prompt
/// One drafter's positions, text by text.
using Positions = std::vector<Text>;

/// The recordings' format is described in tests/golden/rounds/README.md.
inline std::map<std::string, Positions> load(const std::string& file) {
    std::ifstream in(file);
    require(in.is_open(), "'{}' cannot be read", file);
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    std::map<std::string, Positions> all;
    Positions* now = nullptr;
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        if (line.starts_with('#')) continue;
        if (line.starts_with('=')) {
            std::string mark, kind;
            words >> mark >> kind;
            now = &all[kind];
            now->emplace_back();
            continue;
        }
        Position p;
        std::string tree;
        words >> p.nodes >> p.draft >> p.pass >> tree;
        p.draft *= 1e-6, p.pass *= 1e-6;
        for (std::size_t i = 0; i + 2 < tree.size(); i += 3) {
            p.hit.push_back(tree[i] < 'a');
            p.parents.push_back(tree[i] - (p.hit.back() ? 'A' : 'a'));
            p.stated.push_back(std::max(0.5, double(32 * digit(tree[i + 1]) + digit(tree[i + 2]))) * 1e-3);
        }
        now->back().push_back(std::move(p));
    }
    return all;
}

/// Pass times of a size near a place in the recording: the size's median, the level that the passes around the place
/// had, and the noise of a single one. A slow spell hits all policies alike.
class Times {
public:
    explicit Times(const Positions& positions) {
        std::map<std::int64_t, std::vector<double>> by_size;
        for (const Text& text : positions)
            for (const Position& p : text) by_size[p.nodes].push_back(p.pass);
        double last = 0;
        for (std::int64_t n = 0; n < std::ssize(median_); ++n) {
            if (by_size.contains(n)) last = std::max(last, middle(by_size[n]));
            median_[static_cast<std::size_t>(n)] = last;
        }
        std::vector<double> ratio;
        for (const Text& text : positions)
            for (const Position& p : text) ratio.push_back(p.pass / median(p.nodes));
        for (std::ptrdiff_t i = 0; i < std::ssize(ratio); ++i) {
            const std::ptrdiff_t from = std::max<std::ptrdiff_t>(0, i - 15), to = std::min(std::ssize(ratio), i + 16);
            level_.push_back(middle({ratio.begin() + from, ratio.begin() + to}));
            noise_.push_back(ratio[static_cast<std::size_t>(i)] / level_.back());
        }
    }

    [[nodiscard]] double median(std::int64_t nodes) const {
        return median_[static_cast<std::size_t>(std::min<std::int64_t>(nodes, 8))];
    }
    [[nodiscard]] double level(std::size_t place) const { return level_[place]; }
    template <typename Engine>
    [[nodiscard]] double noise(Engine& engine) const {
        return noise_[engine() % noise_.size()];
    }

private:
    static double middle(std::vector<double> v) {
        std::nth_element(v.begin(), v.begin() + std::ssize(v) / 2, v.end());
        return v[v.size() / 2];
    }
    std::array<double, 9> median_{};
    std::vector<double> level_, noise_;
};

/// The recorded draft as a tree, with made-up tokens: 1 for a node on the text, others elsewhere.
inline SequenceTree tree_of(const Position& p, SequenceId sequence, std::int64_t nodes) {
    TokenTree::Builder tree(1);
    const auto count = std::min<std::int64_t>(nodes, std::ssize(p.parents));
    std::vector<double> path{1.0};
    std::vector<std::size_t> order(p.parents.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
        path.push_back(path[static_cast<std::size_t>(p.parents[i])] * p.stated[i]);
    }
    // A drafter that is asked for fewer nodes finds the likeliest.
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return path[a + 1] > path[b + 1]; });
    std::vector<NodeIndex> place(path.size(), 0);
    for (std::int64_t k = 0; k < count; ++k) {
        const std::size_t i = order[static_cast<std::size_t>(k)];
        const TokenId token = p.hit[i] ? 1 : static_cast<TokenId>(i + 2);
        place[i + 1] =
            tree.add(place[static_cast<std::size_t>(p.parents[i])], token, static_cast<float>(std::log(p.stated[i])));
    }
    return {sequence, std::move(tree).build()};
}

struct Speed {
    double seconds = 0;
    std::int64_t tokens = 0, drafts = 0, rounds = 0, verified = 0;
    [[nodiscard]] double rate() const { return double(tokens) / seconds; }
};

struct Conditions {
    double catch_up = 0;       ///< seconds for each token beyond eight that the drafter has not seen
    double first = 0;          ///< seconds that its very first call takes beside
    std::int64_t prompt = 60;  ///< tokens of each prompt
};

/// Walks through the recorded texts under a budget. `none`: the recording without a drafter, for what passes take that
/// follow no draft.
inline Speed run(const Positions& drafter, const Positions& none, TreeBudget sizes, const Conditions& world,
                 std::uint64_t seed) {
    std::mt19937_64 engine(seed);
    const Times times(drafter), plain(none);
    Speed speed;
    std::size_t base = 0;
    for (SequenceId sequence = 0; const Text& text : drafter) {
        ++sequence;
        std::int64_t owed = world.prompt;
        for (std::size_t at = 0; at < text.size();) {
            const Position& p = text[at];
            const DraftPlan plan = sizes.plan(std::span(&owed, 1));
            const bool drafts = !plan.drafting.empty() && plan.budget.nodes > 0;
            RoundReport report{1, 0, 0, 0, 0};
            std::vector<SequenceTree> trees;
            trees.push_back(drafts ? tree_of(p, sequence, plan.budget.nodes)
                                   : SequenceTree{sequence, TokenTree::root_only(1)});
            trees = sizes.trim(std::move(trees));
            const Acceptance accepted = accept_walk(trees[0].tree, [](NodeIndex) { return TokenId{1}; });
            report.drafted = std::ssize(trees[0].tree.tokens()) - 1, report.accepted = std::ssize(accepted.path);
            const double level = times.level(base + at);
            if (drafts) {
                report.draft_seconds = p.draft + world.catch_up * double(std::max<std::int64_t>(0, owed - 8)) +
                                       (speed.drafts == 0 ? world.first : 0.0);
                report.verify_seconds = times.median(report.drafted) * level * times.noise(engine);
                owed = 0, ++speed.drafts;
            } else {
                report.verify_seconds = plain.median(0) * level * plain.noise(engine);
            }
            sizes.saw(trees[0], accepted);
            sizes.learn(report);
            const auto went = std::min<std::int64_t>(report.accepted + 1, static_cast<std::int64_t>(text.size() - at));
            speed.seconds += report.draft_seconds + report.verify_seconds, speed.tokens += went, ++speed.rounds;
            speed.verified += report.drafted;
            owed += went, at += static_cast<std::size_t>(went);
        }
        base += text.size();
    }
    return speed;
}

/// Tokens that a tree is expected to bring beyond its price, at its best size, as a merged drafter reckons.
inline double worth(const SequenceTree& drafted, const DraftBudget& budget) {
    const TokenTree& tree = drafted.tree;
    std::vector<double> path(tree.size(), 1.0);
    for (std::size_t i = 1; i < tree.size(); ++i)
        path[i] = path[static_cast<std::size_t>(tree.parents()[i])] * std::exp(double(tree.log_q()[i]));
    std::sort(path.begin() + 1, path.end(), std::greater<>());
    double best = 0, sum = 0;
    for (std::size_t n = 1; n < path.size() && n < budget.tree_prices.size(); ++n)
        sum += path[n], best = std::max(best, sum - budget.tree_prices[n]);
    return best;
}

/// The same walk for n-grams merged with another drafter, whose parts rest by themselves: where only n-grams draft, the
/// recorded tree of n-grams is what comes out, where both do, the recorded merged one.
inline Speed run_merged(const std::map<std::string, Positions>& all, const std::string& other, TreeBudget sizes,
                        const Conditions& world, std::uint64_t seed) {
    const Positions &none = all.at("none"), &ngram = all.at("ngram"), &dear = all.at(other),
                    &both = all.at(other + "+ngram");
    std::mt19937_64 engine(seed);
    const Times plain(none), ngram_times(ngram), both_times(both);
    budget::Part first, second;
    Speed speed;
    std::size_t base = 0;
    for (std::size_t t = 0; t < both.size(); ++t) {
        const auto sequence = static_cast<SequenceId>(t + 1);
        const std::size_t length = both[t].size();
        std::int64_t owed = world.prompt, first_owed = 0, second_owed = 0;
        double emitted = 1;
        for (std::size_t at = 0; at < length;) {
            const DraftPlan plan = sizes.plan(std::span(&owed, 1));
            RoundReport report{1, 0, 0, 0, 0};
            SequenceTree tree{sequence, TokenTree::root_only(1)};
            const Times* times = &plain;
            if (!plan.drafting.empty()) {
                first_owed += owed, second_owed += owed, owed = 0;
                first.round(1, emitted), second.round(1, emitted), emitted = 0;
                const double price = plan.budget.second_price;
                double before = 0, now = 0;
                if (first.ask(0.0, first_owed, price)) {
                    first.took(1, std::exchange(first_owed, 0), ngram[t][at].draft, price);
                    tree = tree_of(ngram[t][at], sequence, plan.budget.nodes);
                    report.draft_seconds = ngram[t][at].draft, times = &ngram_times;
                    first.added(0.0, before = worth(tree, plan.budget));
                }
                if (second.ask(before, second_owed, price)) {
                    double took =
                        dear[t][at].draft + world.catch_up * double(std::max<std::int64_t>(0, second_owed - 8));
                    if (speed.drafts++ == 0) took += world.first;
                    second.took(1, std::exchange(second_owed, 0), took, price);
                    tree = tree_of(both[t][at], sequence, plan.budget.nodes);
                    report.draft_seconds += took, times = &both_times;
                    now = worth(tree, plan.budget);
                    second.added(before, std::max(0.0, now - before));  // to contradict a promise loses nothing
                }
            }
            std::vector<SequenceTree> trees;
            trees.push_back(std::move(tree));
            trees = sizes.trim(std::move(trees));
            const Acceptance accepted = accept_walk(trees[0].tree, [](NodeIndex) { return TokenId{1}; });
            report.drafted = std::ssize(trees[0].tree.tokens()) - 1, report.accepted = std::ssize(accepted.path);
            report.verify_seconds = times->median(report.drafted) * both_times.level(base + at) * times->noise(engine);
            sizes.saw(trees[0], accepted);
            sizes.learn(report);
            const auto went = std::min<std::int64_t>(report.accepted + 1, static_cast<std::int64_t>(length - at));
            speed.seconds += report.draft_seconds + report.verify_seconds, speed.tokens += went, ++speed.rounds;
            speed.verified += report.drafted;
            owed += went, at += static_cast<std::size_t>(went), emitted += double(went);
        }
        base += length;
    }
    return speed;
}

/// What a table measured beforehand would say: the plain pass, and the growth with the nodes that a look-up drafter's
/// passes had.
inline std::vector<PassTime> table_of(const Positions& none, const Positions& lookup) {
    const Times plain(none), times(lookup);
    std::vector<PassTime> table;
    for (std::int64_t n = 0; n <= 8; ++n) table.push_back({n + 1, plain.median(0) * times.median(n) / times.median(0)});
    return table;
}

}  // namespace outrider::replay
