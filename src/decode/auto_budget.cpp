#include <outrider/decode/auto_budget.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace outrider {

namespace {

constexpr std::int64_t kUnknownRounds = 2;  // plain, where nothing was measured beforehand
constexpr std::int64_t kPlainEvery = 64;    // an open budget looks at a plain round again
constexpr double kAllowed = 0.01;           // of all time may be lost to finding out, besides kFirstAllowance;
constexpr double kMostSaved = 8.0;          // no more is ever saved up
constexpr double kExploreShare = 0.01;      // of open rounds' time, at most, goes into sizes that do not seem best
constexpr std::int64_t kFirstInterval = 16, kLongestInterval = 256;  // rounds from probe to probe
constexpr double kLeastGain = 1.05;                                  // that a perfect drafter must promise
constexpr double kCheap = 0.004;              // a drafter that costs this part of a round is always run
constexpr double kMargin = 0.01;              // tokens of each sequence that verifying nodes must promise
constexpr double kFade = 0.97;                // weight of the past from one open round to the next
constexpr std::int64_t kFirstNodes = 1;       // of a tree at first; each draft seen allows one more
constexpr double kLongCounted = 24;           // rounds, fading
constexpr std::int64_t kCountedCatchUp = 48;  // tokens of a sequence that a probe's price counts, at most
constexpr double kPriorTrust = 0.85;          // of the drafter's own word, before anything is known,
constexpr double kPriorHits = 2.0;            // which counts for so many expected hits
constexpr double kRecentPrior = 6.0;          // expected hits that the long record counts for beside the recent one
constexpr double kSlow = 0.99, kFast = 0.9;   // memory of the records, from tree to tree
constexpr double kProbeMemory = 0.85;         // a probe comes after a long time: what was seen before counts less

}  // namespace

void AutoBudget::DepthRecord::add(double hoped, double came, double memory) {
    expected = expected * kSlow * memory + hoped, came_true = came_true * kSlow * memory + came;
    expected_lately = expected_lately * kFast + hoped, came_true_lately = came_true_lately * kFast + came;
}

/// `above`: the factor of the depth above, which is believed where little was seen of this one.
double AutoBudget::DepthRecord::factor(double above) const {
    const double slow = (came_true + kPriorHits * above) / (expected + kPriorHits);
    return (came_true_lately + kRecentPrior * slow) / (expected_lately + kRecentPrior);
}

double AutoBudget::gain() const { return plain_tokens_ > 0 ? tokens_ / plain_tokens_ : 1.0; }

/// Whether nodes that all come true would gain anything.
bool AutoBudget::could_gain(std::int64_t sequences, std::int64_t drafting) const {
    const double plain = cost_(sequences), draft = draft_cost_.once(drafting, 0);
    if (plain <= 0) return true;
    const double least = 1 + (kLeastGain - 1) * double(drafting) / double(sequences);
    for (std::int64_t rows = PassCost::above(sequences); rows <= sequences + most_ * drafting;) {
        if (double(rows) / (least_cost(rows) + draft) > least * double(sequences) / plain) return true;
        const std::int64_t next = PassCost::above(rows);
        if (next == rows) break;
        rows = next;
    }
    return false;
}

/// How many sequences a probe asks: an eighth, or as many of it as what is saved up allows; one while what the drafter
/// costs is not known.
std::int64_t AutoBudget::probe_size(std::int64_t sequences) const {
    if (drafts_ == 0) return 1;
    const double one = probe_loss(sequences, 1);
    const auto affordable = static_cast<std::int64_t>(std::min(balance_ * cost_(sequences) / std::max(one, 1e-9), 1e6));
    return std::clamp<std::int64_t>(affordable, 1, std::max<std::int64_t>(sequences / 8, 1));
}

AutoBudget::Round AutoBudget::choose_round(std::int64_t sequences) {
    ++rounds_;
    if (!measured_ && rounds_ <= kUnknownRounds) return Round::plain;
    const std::int64_t few = probe_size(sequences);
    if (asked_ == 0) asked_ = few;
    if (!could_gain(sequences, few) && !could_gain(sequences, sequences)) return Round::plain;
    if (open_) return ++open_rounds_ % kPlainEvery == 0 ? Round::plain : Round::drafting;
    ++since_probe_;
    return since_probe_ >= interval_ && balance_ * cost_(sequences) >= probe_loss(sequences, few) ? Round::probe
                                                                                                  : Round::plain;
}

DraftPlan AutoBudget::plan(std::span<const std::int64_t> owed) {
    const auto sequences = static_cast<std::int64_t>(owed.size());
    drafting_ = owed_ = 0, round_value_ = round_hope_ = 0;
    round_ = sequences > 0 ? choose_round(sequences) : Round::plain;
    if (round_ == Round::plain) return {};
    drafting_ = round_ == Round::probe ? probe_size(sequences) : std::min(asked_, sequences);
    DraftPlan plan{std::vector<std::size_t>(owed.size()), {}};
    std::iota(plan.drafting.begin(), plan.drafting.end(), std::size_t{0});
    if (drafting_ < sequences) {  // those that the drafter need not catch up with
        std::stable_sort(plan.drafting.begin(), plan.drafting.end(),
                         [&](std::size_t a, std::size_t b) { return owed[a] < owed[b]; });
        plan.drafting.resize(static_cast<std::size_t>(drafting_));
        std::sort(plan.drafting.begin(), plan.drafting.end());
    }
    for (const std::size_t i : plan.drafting) owed_ += owed[i];
    plan.budget = budget(sequences);
    return plan;
}

/// How large a tree may be, and what time costs at the present rate.
DraftBudget AutoBudget::budget(std::int64_t sequences) {
    DraftBudget budget{.nodes = std::clamp<std::int64_t>(std::llround(2 * nodes_used_) + 2, 1, most_)};
    const double plain = cost_(sequences);
    if (!(plain > 0)) return budget;
    budget.second_price = std::max(gain(), 1.0) * double(sequences) / plain;
    tree_prices_.clear();
    for (std::int64_t n = 0; n <= budget.nodes; ++n)
        tree_prices_.push_back(budget.second_price * (cost_(sequences + n * drafting_) - plain) / double(drafting_));
    budget.tree_prices = tree_prices_;
    return budget;
}

/// Path probabilities, corrected by depth, never above the parent's; and as the drafter states them.
void AutoBudget::add_candidates(const TokenTree& tree, std::uint32_t index, std::vector<Candidate>& nodes) const {
    std::array<double, kDepths> factor{};
    for (std::size_t d = 0; d < kDepths; ++d) factor[d] = depths_[d].factor(d == 0 ? kPriorTrust : factor[d - 1]);
    std::vector<double> raw(tree.size(), 1.0), chance(tree.size(), 1.0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        const auto parent = static_cast<std::size_t>(tree.parents()[i]);
        raw[i] = raw[parent] * std::exp(double(tree.log_q()[i]));
        const std::size_t d = std::min(static_cast<std::size_t>(tree.depths()[i]), kDepths) - 1;
        chance[i] = std::min(chance[parent], raw[i] * factor[d]);
        nodes.push_back({chance[i], raw[i], index, static_cast<NodeIndex>(i)});
    }
}

std::vector<SequenceTree> AutoBudget::trim(std::vector<SequenceTree> trees) {
    if (drafting_ == 0) return trees;
    std::vector<Candidate> nodes;
    bool drawn = false;
    for (std::size_t t = 0; t < trees.size(); ++t) {
        drawn = drawn || (trees[t].samples != nullptr && !trees[t].samples->is_chosen());
        add_candidates(trees[t].tree, static_cast<std::uint32_t>(t), nodes);
    }
    // Parents are at least as likely as their children and come first, so every beginning of the order is made of
    // trees.
    std::stable_sort(nodes.begin(), nodes.end(),
                     [](const Candidate& a, const Candidate& b) { return a.chance > b.chance; });
    const std::size_t count = best_count(nodes, static_cast<std::int64_t>(trees.size()));
    std::vector<std::vector<bool>> keep(trees.size());
    std::vector<std::size_t> kept_nodes(trees.size(), 0);
    for (std::size_t t = 0; t < trees.size(); ++t) keep[t].assign(trees[t].tree.size(), false);
    for (std::size_t i = 0; i < count; ++i)
        keep[nodes[i].tree][static_cast<std::size_t>(nodes[i].node)] = true, ++kept_nodes[nodes[i].tree];
    nodes_used_ = std::max(0.95 * nodes_used_, double(*std::max_element(kept_nodes.begin(), kept_nodes.end())));
    // What is kept of a sampled tree would depend on its draws, and the text's law on what is kept: the next rounds ask
    // for less instead.
    if (drawn || count == nodes.size()) return trees;
    for (std::size_t t = 0; t < trees.size(); ++t) {
        const TokenTree& whole = trees[t].tree;
        if (kept_nodes[t] == whole.drafted()) continue;
        TokenTree::Builder kept(whole.token(0), kept_nodes[t]);
        std::vector<NodeIndex> place(whole.size(), 0);
        for (std::size_t i = 1; i < whole.size(); ++i)
            if (keep[t][i])
                place[i] =
                    kept.add(place[static_cast<std::size_t>(whole.parents()[i])], whole.tokens()[i], whole.log_q()[i]);
        trees[t].tree = std::move(kept).build();
    }
    return trees;
}

/// How many of the candidates, likeliest first, to verify; and what that is worth against a plain pass.
std::size_t AutoBudget::best_count(const std::vector<Candidate>& sorted, std::int64_t sequences) {
    const auto all = static_cast<std::int64_t>(sorted.size());
    const double plain = cost_(sequences), plain_rate = double(sequences) / plain;
    const double rate = std::max(gain(), 1.0) * plain_rate, margin = kMargin * double(sequences);
    std::vector<double> tokens(sorted.size() + 1, 0.0);  // expected of the first n
    std::int64_t best = 0;
    double claimed = 0, best_value = margin;
    for (std::int64_t n = 1; n <= all; ++n) {
        const Candidate& last = sorted[static_cast<std::size_t>(n - 1)];
        tokens[static_cast<std::size_t>(n)] = tokens[static_cast<std::size_t>(n - 1)] + last.chance;
        claimed += std::max(last.chance, kPriorTrust * last.claimed);
        const double more = cost_(sequences + n) - plain, sum = tokens[static_cast<std::size_t>(n)];
        if (const double value = sum - rate * more; value > best_value) best_value = value, best = n;
        round_value_ = std::max(round_value_, sum - plain_rate * more - margin);
        round_hope_ = std::max(round_hope_, claimed - plain_rate * (least_cost(sequences + n) - plain) - margin);
    }
    best = std::min({best, all, drafting_ * (kFirstNodes + drafts_)});
    if (round_ == Round::probe) best = std::min(std::max(best, drafting_), all);
    const auto value = [&](std::int64_t n) {
        return tokens[static_cast<std::size_t>(n)] - rate * (cost_(sequences + n) - plain);
    };
    if (const std::int64_t n = look(best, all, sequences, tokens, rate); n != best) return static_cast<std::size_t>(n);
    if (round_ == Round::probe) {  // of sizes in turn, whose costs it learns too
        const std::int64_t more = std::min(std::max(best, drafting_ * (1 + probes_++ % 3)), all);
        return static_cast<std::size_t>(value(best) - value(more) < 0.5 * balance_ * double(sequences) ? more : best);
    }
    return static_cast<std::size_t>(explore(best, all, sequences, [&](std::int64_t n) { return value(n) / rate; }));
}

/// A pass's cost if rows beyond all that were ever seen came at half the price of those that were.
double AutoBudget::least_cost(std::int64_t rows) const {
    const std::int64_t seen = std::max<std::int64_t>(cost_.largest_seen(), 1);
    if (measured_ || rows <= seen) return cost_(rows);
    const std::int64_t first = cost_.smallest_seen();
    const double slope = seen > first ? (cost_(seen) - cost_(first)) / double(seen - first) : 0.0;
    return cost_(seen) + 0.5 * slope * double(rows - seen);
}

/// Where nothing was measured beforehand: twice the largest size so far, if it could pay and what it seems to cost is
/// saved up. So few looks tell what passes of all useful sizes cost.
std::int64_t AutoBudget::look(std::int64_t best, std::int64_t all, std::int64_t sequences,
                              const std::vector<double>& tokens, double rate) const {
    if (measured_ || drafts_ == 0) return best;
    const std::int64_t seen = cost_.largest_seen();
    const std::int64_t n = std::min(all, std::max(2 * seen, sequences + 2) - sequences);
    if (n <= best || sequences + n <= seen) return best;
    const double more = tokens[static_cast<std::size_t>(n)] - tokens[static_cast<std::size_t>(best)];
    if (more < rate * (least_cost(sequences + n) - cost_(sequences + best))) return best;
    const double price = rate * (cost_(sequences + n) - cost_(sequences + best)) - more;
    return price <= 0.25 * balance_ * double(sequences) ? n : best;
}

/// Now and then a size that does not seem best, for what passes of that size really take: in turns the next larger and
/// the next smaller, once what that seems to lose has been saved up. `worth`: seconds that n nodes seem to gain.
std::int64_t AutoBudget::explore(std::int64_t best, std::int64_t all, std::int64_t sequences,
                                 const std::function<double(std::int64_t)>& worth) {
    const double plain = cost_(sequences);
    credit_ = std::min(credit_ + kExploreShare * plain, 2 * plain);
    const bool up = best == 0 || explored_ % 2 == 0;
    const std::int64_t rows = up ? PassCost::above(sequences + best) : PassCost::below(sequences + best);
    const std::int64_t other = std::max<std::int64_t>(rows - sequences, 1);
    if (other == best || other > all) return best;
    const double price = std::max(0.0, worth(best) - worth(other)) + 8 * kExploreShare * plain;
    if (price > credit_) return best;
    credit_ -= price, ++explored_;
    return other;
}

void AutoBudget::saw(const TokenTree& tree, std::size_t accepted) {
    std::array<double, kDepths> expected{};
    std::vector<double> raw(tree.size(), 1.0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        raw[i] = raw[static_cast<std::size_t>(tree.parents()[i])] * std::exp(double(tree.log_q()[i]));
        if (const auto d = static_cast<std::size_t>(tree.depths()[i]); d <= kDepths) expected[d - 1] += raw[i];
    }
    const double memory = round_ == Round::probe ? kProbeMemory : 1.0;
    for (std::size_t d = 0; d < std::min(kDepths, static_cast<std::size_t>(tree.height())); ++d)
        depths_[d].add(expected[d], accepted > d ? 1.0 : 0.0, memory);
}

void AutoBudget::learn(const RoundReport& report) {
    if (report.sequences == 0) return;
    const auto sequences = static_cast<std::int64_t>(report.sequences);
    cost_.learn(sequences + report.drafted, report.verify_seconds);
    if (drafting_ == 0) return allow(sequences, cost_(sequences), 0);
    draft_cost_.learn(drafting_, owed_, report.draft_seconds);
    settle(report);
}

/// What may be lost to finding out: a part of all time, what drafting gained, less what it lost. `lost`: seconds.
void AutoBudget::allow(std::int64_t sequences, double seconds, double lost) {
    const double plain = cost_(sequences);
    if (!(plain > 0)) return;
    const double most = std::max(kMostSaved, 1.5 * probe_loss(sequences, 1) / plain);
    balance_ = std::min(balance_ + (kAllowed * seconds - lost) / plain, most);
}

/// Whether drafting goes on, and of how many sequences; and when the next probe is due. All by what rounds like this
/// one take, not by what this one took: on a machine that does other work too, a single round says little.
void AutoBudget::settle(const RoundReport& report) {
    const auto sequences = static_cast<std::int64_t>(report.sequences);
    const double plain = cost_(sequences), rate = double(sequences) / plain;
    const double draft = draft_cost_.lasting(drafting_, owed_), verify = cost_(sequences + report.drafted);
    const double emitted = double(sequences + report.accepted), once = draft_cost_.once(drafting_, owed_);
    const bool probe = round_ == Round::probe;
    const double fade = probe ? 0.5 : kFade, asked = double(drafting_);
    value_ = value_ * fade + round_value_, hope_ = hope_ * fade + round_hope_, valued_ = valued_ * fade + asked;
    drafts_ += drafting_;
    allow(sequences, once + verify, once + verify - emitted / rate);
    const double cost = rate * draft;  // tokens that plain decoding makes meanwhile
    const bool pays = value_ / valued_ * asked > cost || cost < kCheap * double(sequences);
    if (probe) {
        asked_ = drafting_, trial_ = kTrial, since_probe_ = 0;
        tokens_ = plain_tokens_ = counted_ = 0;
    } else {
        tokens_ = tokens_ * kFade + emitted;
        plain_tokens_ = plain_tokens_ * kFade + rate * (draft + verify);
        counted_ = counted_ * kFade + 1;
        if (pays) asked_ = std::min(2 * std::min(asked_, sequences), std::max(asked_, sequences));
        if (counted_ > kLongCounted && gain() > 1) interval_ = 0;  // a good spell: what was before it is forgotten
    }
    const bool losing = !probe && balance_ < 0 && gain() < 1;
    const bool hopeful = !probe && balance_ > 0 && hope_ / valued_ * asked > cost && could_gain(sequences, drafting_);
    // While no steady draft was seen, the next one may take as much as this one did.
    const double next = draft_cost_.known() ? draft : once;
    const bool trying = trial_ > 0 && --trial_ > 0 && balance_ > next / plain;
    open_ = trying || (!losing && (pays || hopeful));
    if (open_) return;
    if (losing) value_ = 0;
    since_probe_ = trial_ = 0;
    interval_ = probe && report.accepted > 0 ? interval_ / 2 : 2 * interval_;
    interval_ = std::clamp<std::int64_t>(interval_, probe ? kFirstInterval / 2 : kFirstInterval, kLongestInterval);
}

/// Seconds that a probe of `few` sequences costs where nothing comes of it. Catching up counts up to a bound: else it
/// could grow with the time waited faster than what may be spent, and no probe would ever come.
double AutoBudget::probe_loss(std::int64_t sequences, std::int64_t few) const {
    const std::int64_t owed = few * std::min(since_probe_ + 1, kCountedCatchUp);
    return draft_cost_.once(few, owed) + cost_(sequences + few) - cost_(sequences);
}

}  // namespace outrider
