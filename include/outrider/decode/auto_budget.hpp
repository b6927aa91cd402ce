// Trees as large as they pay for, and none where they do not: the cost of a target pass and of the drafter against the
// calibrated chances of the drafted nodes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <outrider/core/detail/export.hpp>
#include <outrider/decode/pass_cost.hpp>
#include <outrider/budget/draft_cost.hpp>
#include <outrider/target/round.hpp>

namespace outrider {

/// Which sequences of a round draft (indices, ascending; the drafter is not run when there are none), and how much.
struct DraftPlan {
    std::vector<std::size_t> drafting;
    DraftBudget budget;
};

/// What a round cost and gained, told to the budget after it.
struct RoundReport {
    std::size_t sequences = 0;
    std::int64_t drafted = 0;   ///< nodes below the roots, all sequences together
    std::int64_t accepted = 0;  ///< of these, kept
    double draft_seconds = 0;
    double verify_seconds = 0;  ///< verify and commit
};

/// The drafter proposes, and of all sequences' nodes together the likeliest n are kept, n maximising
/// (expected tokens) - R * t(rows): R is the present rate in tokens a second, t the cost of a pass. That is the rule
/// that maximises the long-run rate (Dinkelbach 1967). A node's chance is its path's probability by the drafter,
/// corrected by what came true at its depth.
///
/// Drafting is open while what it is expected to gain exceeds what the drafter costs; else rounds are plain and the
/// drafter is not run, but for a probe now and then: of an eighth of the sequences at most, one node for each at least,
/// the next one twice as far away when nothing came of it. A probe, and the start, goes on for a few rounds while that
/// can be paid: one round says little, and the drafter has caught up already. What finding out may lose is kept as an
/// account: little more than a plain round at the start, a hundredth of all time, and what drafting has gained, up to a
/// few rounds. When it is spent, rounds are plain until time has filled it again: so the loss against plain decoding is
/// bounded whatever the drafter claims, but for the cost of its first draft, which nothing tells beforehand. A batch
/// opens with one sequence, and doubles those that draft while that pays. Where passes are such that not even a perfect
/// drafter could gain, none is ever run.
class OUTRIDER_API AutoBudget {
public:
    /// Up to `most` nodes for each sequence. `measured`: see PassCost.
    explicit AutoBudget(std::int64_t most, std::span<const PassTime> measured = {})
        : most_(most), cost_(measured), measured_(!measured.empty()) {}

    /// `owed`: for each sequence, the tokens that the drafter has not seen yet.
    [[nodiscard]] DraftPlan plan(std::span<const std::int64_t> owed);
    /// Trees of all sequences of the round; those that do not draft have their root alone.
    [[nodiscard]] std::vector<SequenceTree> trim(std::vector<SequenceTree> trees);
    /// A tree as it was verified, and how deep it was accepted.
    void saw(const TokenTree& tree, std::size_t accepted);
    void learn(const RoundReport& report);

    /// Estimated speed of drafting rounds over plain ones; 1 before anything is known.
    [[nodiscard]] double gain() const;
    /// Whether the next rounds draft.
    [[nodiscard]] bool open() const noexcept { return open_; }

private:
    enum class Round : unsigned char { plain, probe, drafting };

    struct Candidate {
        double chance = 0, claimed = 0;  ///< corrected, and as the drafter states it
        std::uint32_t tree = 0;
        NodeIndex node = 0;
    };

    static constexpr std::size_t kDepths = 16;
    static constexpr double kFirstAllowance = 1.2;
    static constexpr std::int64_t kTrial =
        4;                ///< drafting rounds that a start begins with, and a probe: one says little
    struct DepthRecord {  ///< fading, slowly and fast
        double expected = 0, came_true = 0, expected_lately = 0, came_true_lately = 0;
        void add(double hoped, double came, double memory);
        [[nodiscard]] double factor(double above) const;
    };

    [[nodiscard]] Round choose_round(std::int64_t sequences);
    [[nodiscard]] DraftBudget budget(std::int64_t sequences);
    [[nodiscard]] bool could_gain(std::int64_t sequences, std::int64_t drafting) const;
    void add_candidates(const TokenTree& tree, std::uint32_t index, std::vector<Candidate>& nodes) const;
    [[nodiscard]] std::size_t best_count(const std::vector<Candidate>& sorted, std::int64_t sequences);
    [[nodiscard]] double least_cost(std::int64_t rows) const;
    [[nodiscard]] std::int64_t look(std::int64_t best, std::int64_t all, std::int64_t sequences,
                                    const std::vector<double>& tokens, double rate) const;
    [[nodiscard]] std::int64_t explore(std::int64_t best, std::int64_t all, std::int64_t sequences,
                                       const std::function<double(std::int64_t)>& worth);
    void settle(const RoundReport& report);
    void allow(std::int64_t sequences, double seconds, double lost);
    [[nodiscard]] double probe_loss(std::int64_t sequences, std::int64_t few) const;
    [[nodiscard]] std::int64_t probe_size(std::int64_t sequences) const;

    std::int64_t most_;
    PassCost cost_;
    bool measured_;
    DraftCost draft_cost_;
    std::array<DepthRecord, kDepths> depths_{};           ///< [depth - 1]
    double tokens_ = 0, plain_tokens_ = 0, counted_ = 0;  ///< of open rounds, fading: emitted, what plain rounds would
                                                          ///< have in the same time, rounds
    double balance_ = kFirstAllowance;                    ///< plain rounds that may be lost
    double value_ = 0,
           hope_ = 0;    ///< fading: tokens expected to be gained by verifying, and by the drafter's own word,
    double valued_ = 0;  ///< of so many drafts
    std::int64_t rounds_ = 0, open_rounds_ = 0, drafts_ = 0, since_probe_ = 0, interval_ = 0;
    std::int64_t trial_ = kTrial;  ///< rounds that drafting stays open whatever comes of them, while that can be paid
    std::int64_t asked_ = 0;       ///< sequences that an open round asks; grows while drafting pays
    std::int64_t explored_ = 0, probes_ = 0;
    double credit_ = 0;      ///< seconds saved up for exploring
    double nodes_used_ = 8;  ///< of one tree, fading maximum
    bool open_ = true;

    Round round_ = Round::plain;  ///< the round that is running, with what follows
    std::int64_t drafting_ = 0, owed_ = 0;
    double round_value_ = 0, round_hope_ = 0;
    std::vector<double> tree_prices_;
};

}  // namespace outrider
