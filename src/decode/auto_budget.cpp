#include <outrider/decode/auto_budget.hpp>

#include <algorithm>
#include <cmath>

namespace outrider {

namespace {

constexpr std::array<std::int64_t, 10> kFirstSizes{0, 3, 7, 1, 15, 0, 5, 3, 7, 15};  // nodes a sequence, to measure t
constexpr std::int64_t kNeighbourEvery = 16;
constexpr std::int64_t kProbeEvery = 48;
constexpr double kFade = 0.97;        // weight of the past from one drafting round to the next
constexpr double kPriorNodes = 4.0;   // expected hits that the drafter's own word counts for

}  // namespace

DraftBudget AutoBudget::choose(std::size_t) {
    drafting_ = !plain_ || ++since_probe_ >= kProbeEvery;
    if (drafting_) since_probe_ = 0;
    return {drafting_ ? most_ : 0};
}

double AutoBudget::gain() const { return plain_tokens_ > 0 ? tokens_ / plain_tokens_ : 1.0; }

/// Path probabilities, corrected by depth; never above the parent's.
std::vector<double> AutoBudget::chances(const TokenTree& tree) const {
    std::vector<double> raw(tree.size(), 1.0), chance(tree.size(), 1.0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        const auto parent = static_cast<std::size_t>(tree.parents()[i]);
        raw[i] = raw[parent] * std::exp(double(tree.log_q()[i]));
        const DepthRecord& d = depths_[std::min(static_cast<std::size_t>(tree.depths()[i]), kDepths) - 1];
        chance[i] = std::min(chance[parent], raw[i] * (d.came_true + kPriorNodes) / (d.expected + kPriorNodes));
    }
    return chance;
}

std::vector<SequenceTree> AutoBudget::trim(std::vector<SequenceTree> trees) {
    // What is kept of a sampled tree would depend on its draws, and the text's law on what is kept.
    for (const SequenceTree& t : trees)
        if (t.samples != nullptr) return trees;
    std::vector<Candidate> nodes;
    for (std::size_t t = 0; t < trees.size(); ++t) {
        const std::vector<double> chance = chances(trees[t].tree);
        for (std::size_t i = 1; i < chance.size(); ++i)
            nodes.push_back({chance[i], static_cast<std::uint32_t>(t), static_cast<NodeIndex>(i)});
    }
    // Parents are at least as likely as their children and come first, so every beginning of the order is made of
    // trees.
    std::stable_sort(nodes.begin(), nodes.end(),
                     [](const Candidate& a, const Candidate& b) { return a.chance > b.chance; });
    const std::size_t count = best_count(nodes, static_cast<std::int64_t>(trees.size()));
    if (count == nodes.size()) return trees;
    std::vector<std::vector<bool>> keep(trees.size());
    for (std::size_t t = 0; t < trees.size(); ++t) keep[t].assign(trees[t].tree.size(), false);
    for (std::size_t i = 0; i < count; ++i) keep[nodes[i].tree][static_cast<std::size_t>(nodes[i].node)] = true;
    for (std::size_t t = 0; t < trees.size(); ++t) {
        const TokenTree& whole = trees[t].tree;
        TokenTree::Builder kept(whole.token(0), whole.size());
        std::vector<NodeIndex> place(whole.size(), 0);
        for (std::size_t i = 1; i < whole.size(); ++i)
            if (keep[t][i])
                place[i] =
                    kept.add(place[static_cast<std::size_t>(whole.parents()[i])], whole.tokens()[i], whole.log_q()[i]);
        trees[t].tree = std::move(kept).build();
    }
    return trees;
}

/// How many of the candidates, likeliest first, to verify.
std::size_t AutoBudget::best_count(const std::vector<Candidate>& sorted, std::int64_t sequences) {
    if (!drafting_) return 0;
    const auto all = static_cast<std::int64_t>(sorted.size());
    const std::int64_t round = drafting_rounds_++;
    if (round < static_cast<std::int64_t>(kFirstSizes.size()))
        return static_cast<std::size_t>(std::min(all, kFirstSizes[static_cast<std::size_t>(round)] * sequences));
    const double plain = cost_(sequences);
    if (plain <= 0) return sorted.size();
    const double rate = std::max(gain(), 1.0) * double(sequences) / plain;
    std::int64_t best = 0;
    double tokens = 0, best_value = -rate * plain;
    for (std::int64_t n = 1; n <= all; ++n) {
        tokens += sorted[static_cast<std::size_t>(n - 1)].chance;
        if (const double value = tokens - rate * cost_(sequences + n); value > best_value) best_value = value, best = n;
    }
    if (round % kNeighbourEvery == 0) {
        const std::int64_t rows = round % (2 * kNeighbourEvery) == 0 ? PassCost::above(sequences + best)
                                                                     : PassCost::below(sequences + best);
        best = std::clamp<std::int64_t>(rows - sequences, 0, all);
    }
    return static_cast<std::size_t>(best);
}

void AutoBudget::saw(const TokenTree& tree, std::size_t accepted) {
    std::array<double, kDepths> expected{};
    std::vector<double> raw(tree.size(), 1.0);
    for (std::size_t i = 1; i < tree.size(); ++i) {
        raw[i] = raw[static_cast<std::size_t>(tree.parents()[i])] * std::exp(double(tree.log_q()[i]));
        if (const auto d = static_cast<std::size_t>(tree.depths()[i]); d <= kDepths) expected[d - 1] += raw[i];
    }
    for (std::size_t d = 0; d < std::min(kDepths, static_cast<std::size_t>(tree.height())); ++d) {
        DepthRecord& record = depths_[d];
        record.expected = record.expected * 0.995 + expected[d];
        record.came_true = record.came_true * 0.995 + (accepted > d ? 1.0 : 0.0);
    }
}

void AutoBudget::learn(const RoundReport& report) {
    if (report.sequences == 0) return;
    const auto sequences = static_cast<std::int64_t>(report.sequences);
    cost_.learn(sequences + report.drafted, report.verify_seconds);
    ++rounds_;
    const bool measured = drafting_rounds_ > static_cast<std::int64_t>(kFirstSizes.size());
    if (!drafting_ || !measured) return;
    // A round that drafts against the plain rounds that fit into its time.
    tokens_ = tokens_ * kFade + double(sequences + report.accepted);
    plain_tokens_ = plain_tokens_ * kFade +
                    double(sequences) * (report.draft_seconds + report.verify_seconds) / cost_(sequences);
    if (drafting_rounds_ > static_cast<std::int64_t>(kFirstSizes.size()) + 8) plain_ = gain() < (plain_ ? 1.02 : 0.99);
}

}  // namespace outrider
