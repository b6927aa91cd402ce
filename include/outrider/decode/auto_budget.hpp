// Trees as large as they pay for: the measured cost of a target pass against the calibrated chances of the drafted
// nodes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <outrider/decode/pass_cost.hpp>
#include <outrider/interface/round.hpp>

namespace outrider {

/// What a round cost and gained, told to the budget after it.
struct RoundReport {
    std::size_t sequences = 0;
    std::int64_t drafted = 0;   ///< nodes below the roots, all sequences together
    std::int64_t accepted = 0;  ///< of these, kept
    double draft_seconds = 0;
    double verify_seconds = 0;  ///< verify and commit
};

/// Each round the drafter proposes up to `most` nodes a sequence, and of all sequences' nodes together the likeliest n
/// are kept, n maximising (expected tokens) - R * t(rows): R is the present rate in tokens a second, t the measured
/// cost of a pass. That is the rule that maximises the long-run rate (Dinkelbach 1967). A node's chance is its path's
/// probability by the drafter, corrected by what came true at its depth. The first rounds try several sizes to measure
/// t; later every 16th tries a neighbouring size. Where drafting does not pay at all, it decodes plainly and asks the
/// drafter again once in 48 rounds.
class AutoBudget {
public:
    explicit AutoBudget(std::int64_t most) : most_(most) {}

    [[nodiscard]] DraftBudget choose(std::size_t sequences);
    [[nodiscard]] std::vector<SequenceTree> trim(std::vector<SequenceTree> trees);
    /// A tree as it was verified, and how deep it was accepted.
    void saw(const TokenTree& tree, std::size_t accepted);
    void learn(const RoundReport& report);

    /// Estimated speed of drafting rounds over plain ones; 1 before anything is known.
    [[nodiscard]] double gain() const;

private:
    struct Candidate {
        double chance = 0;
        std::uint32_t tree = 0;
        NodeIndex node = 0;
    };

    [[nodiscard]] std::vector<double> chances(const TokenTree& tree) const;
    [[nodiscard]] std::size_t best_count(const std::vector<Candidate>& sorted, std::int64_t sequences);

    static constexpr std::size_t kDepths = 16;
    struct DepthRecord {
        double expected = 0, came_true = 0;
    };

    std::int64_t most_;
    PassCost cost_;
    std::array<DepthRecord, kDepths> depths_{};  ///< [depth - 1], fading
    double tokens_ = 0, plain_tokens_ = 0;  ///< of drafting rounds, fading: emitted, and what plain rounds would have
    std::int64_t rounds_ = 0, drafting_rounds_ = 0, since_probe_ = 0;
    bool plain_ = false;     ///< drafting does not pay at present
    bool drafting_ = false;  ///< the round that is running drafts
};

}  // namespace outrider
