// What `bench` reckons from what it measured: what larger passes cost, what a tree's nodes bring, which size is best.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <outrider/core/result.hpp>
#include <outrider/core/types.hpp>

namespace outrider::cli {

/// Tree sizes of the cost curve, and the tokens a pass for which it says what to expect.
inline constexpr std::array<std::int64_t, 10> kCurveNodes{0, 1, 2, 4, 6, 8, 12, 16, 24, 32};
inline constexpr std::array<double, 5> kCurveBetas{1.5, 2, 2.5, 3, 4};

/// Which nodes of their trees rounds kept, by rank: the order of the nodes in the tree. Trees are best-first, so that
/// the first n nodes are the tree of n nodes: exactly for n-grams (Growth takes nodes off a queue) and CTC (CtcSearch
/// and PrefixTreeSearch sort by Psi). A merged drafter sorts one trie of all parts' nodes; asked for n alone its parts
/// would name fewer, so there the first n are the tree that `--nodes auto` cuts from a larger one.
class RankCounts {
public:
    /// Trees have at most `nodes` nodes below the root.
    explicit RankCounts(std::int64_t nodes);

    /// A round: how many nodes its tree had, and the accepted ones in text order. Throws Error for more nodes than
    /// said.
    void add(std::size_t drafted, std::span<const NodeIndex> path);

    [[nodiscard]] std::int64_t nodes() const noexcept { return std::ssize(kept_) - 1; }
    [[nodiscard]] std::int64_t rounds() const noexcept { return rounds_; }
    /// [nodes + 1] rounds whose tree had so many nodes.
    [[nodiscard]] std::span<const std::int64_t> sizes() const noexcept { return sizes_; }
    /// [nodes + 1] rounds that kept the node of this rank; 0 for the root.
    [[nodiscard]] std::span<const std::int64_t> kept() const noexcept { return kept_; }

    /// Tokens a pass where the first n nodes of every tree are verified; n is at most nodes(). 1 without rounds. A
    /// little low for small n: these rounds begin where the whole tree had failed, smaller ones also amid easy text.
    [[nodiscard]] double beta(std::int64_t n) const;

    /// Mean seconds of those passes, by a table of what passes cost (see budget::read). Small trees cost what they do.
    [[nodiscard]] double pass_seconds(std::int64_t n, std::span<const PassTime> table) const;

private:
    std::int64_t rounds_ = 0;
    std::vector<std::int64_t> sizes_, kept_;
};

/// Nodes of the smaller trees that drafting is timed with.
inline constexpr std::int64_t kFewNodes = 2;

/// A drafter as it was seen on a few texts.
struct DraftingSeen {
    std::string name, kind;
    RankCounts counts{0};
    std::int64_t tokens = 0;   ///< emitted in these rounds
    double draft_seconds = 0;  ///< of a call for counts.nodes() nodes, the median
    /// What rounds took beside passes of their size, the medians: drafting, what it leaves the pass (cold caches,
    /// threads asleep), the host's work. With trees of kFewNodes and of counts.nodes() nodes.
    double beside_few = 0, beside_many = 0;

    /// Of n nodes: on the straight line between the two.
    [[nodiscard]] double beside(std::int64_t n) const;
};

/// One size of tree with one way of holding the weights.
struct CurvePoint {
    std::int64_t nodes = 0;
    double seconds = 0;                           ///< of a pass over the pending token and so many nodes
    double ratio = 1;                             ///< to plain decoding
    std::optional<double> beta = {}, gamma = {};  ///< of the drafter; empty: not measured

    /// The speed-up where such a pass brings `tokens` and drafts cost nothing; empty where it cannot bring so many.
    [[nodiscard]] std::optional<double> gain(double tokens) const;
};

/// The points of kCurveNodes, as far as passes of that many rows were measured. `table`: rows ascending, one at least;
/// between them lie straight lines (budget::read). `plain`: seconds of a round of plain decoding. Sweeps change sizes
/// from pass to pass, which plain decoding does not: their pass of one row may take a quarter more. No pass counts for
/// less.
[[nodiscard]] std::vector<CurvePoint> cost_curve(std::span<const PassTime> table, double plain,
                                                 const DraftingSeen* drafting);

/// What to take: a place in the list of curves, and a size.
struct BestChoice {
    std::size_t way = 0;
    std::int64_t nodes = 0;  ///< 0: plain
    double tokens_per_second = 0;
    double gamma = 1;  ///< over plain decoding with the same weights
};

/// Gains below this are no reason to draft: they are within what such short measurements err.
inline constexpr double kWorthwhile = 1.02;

/// The most tokens a second over all curves; of equals the first. Each has at least the point of no nodes.
[[nodiscard]] BestChoice best_choice(std::span<const std::vector<CurvePoint>> curves);

}  // namespace outrider::cli
