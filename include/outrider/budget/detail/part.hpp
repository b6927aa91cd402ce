// Whether a part of a merged drafter is asked, beside those that have drafted already.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <outrider/budget/detail/draft_cost.hpp>
#include <outrider/budget/detail/exploration.hpp>
#include <outrider/budget/detail/hit_rate.hpp>

namespace outrider::budget {

/// What the part costs, and the tokens that it added as a function of what the parts before it promised in the same
/// round: where they promise much, it mostly says the same again. A range of that promise of which little is known is
/// taken for like the others. A part is asked where what it usually adds exceeds its price; one that pays nowhere is
/// tried again from time to time (Exploration), and one that pays somewhere looks at its other ranges now and then.
/// Prices and values are in tokens of a sequence.
class Part {
public:
    /// A round of so many sequences begins, and so many tokens of each have been emitted since the last one.
    void round(std::size_t sequences, double tokens) {
        exploration_.pass(tokens);
        // What asking loses shows at the end of a round: a batch is tried with an eighth of its sequences.
        trial_left_ = std::max<std::int64_t>(static_cast<std::int64_t>(sequences) / 8, 1);
    }

    /// Whether to ask where the parts before this one promise `before` tokens, for a sequence of which the part has not
    /// seen `owed` tokens. `second_price`: see DraftBudget.
    [[nodiscard]] bool ask(double before, std::int64_t owed, double second_price) {
        const double price = second_price * (cost_.steady(1) + cost_.usual_catch_up());
        const double late = second_price * cost_.catch_up(1, owed);
        Range& range = ranges_[range_of(before)];
        const double net = added(range) - price;
        if (pays_ && net > 0) return true;
        if (exploration_.open() && pays_) return ++range.rested % kLookEvery == 0;
        if (trial_left_ == 0) return false;
        if (!exploration_.wants(Exploration::kTrial * std::max(0.0, price - 0.5 * all_(0.0, 1.0)), late)) return false;
        return --trial_left_, true;
    }

    /// It was asked for `sequences` sequences that had not seen `tokens` tokens, all together, and this is what it
    /// took.
    void took(std::int64_t sequences, std::int64_t tokens, double seconds, double second_price) {
        late_ = second_price * cost_.catch_up(sequences, tokens) / double(sequences);
        cost_.learn(sequences, tokens, seconds);
        price_ = second_price * (cost_.steady(1) + cost_.usual_catch_up());
    }

    /// To one of them it added so many tokens.
    void added(double before, double tokens) {
        Range& range = ranges_[range_of(before)];
        range.added.learn(1.0, tokens, kMemory), all_.learn(1.0, tokens, kMemory);
        pays_ = std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) { return added(r) > price_; });
        const double usual = added(range);
        const Verdict verdict = pays_ ? Verdict::pays : 2 * usual > price_ ? Verdict::doubtful : Verdict::fails;
        exploration_.asked({tokens, price_, late_}, verdict);
    }

    [[nodiscard]] const DraftCost& cost() const noexcept { return cost_; }
    [[nodiscard]] bool open() const noexcept { return exploration_.open(); }

private:
    static constexpr std::array<double, 6> kEdges{0.05, 0.3, 0.6, 1.0, 1.6, 2.5};
    static constexpr double kMemory = 32, kPrior = 6;  ///< drafts
    static constexpr std::int64_t kLookEvery = 32;     ///< rounds of a range in which the part does not pay

    struct Range {
        HitRate added;
        std::int64_t rested = 0;
    };

    static std::size_t range_of(double before) {
        return static_cast<std::size_t>(std::lower_bound(kEdges.begin(), kEdges.end(), before) - kEdges.begin());
    }
    [[nodiscard]] double added(const Range& range) const { return range.added(all_(0.0, 0.5), kPrior); }

    DraftCost cost_;
    Exploration exploration_;
    HitRate all_;
    std::array<Range, kEdges.size() + 1> ranges_{};
    double price_ = 0, late_ = 0;  ///< of the last call, for each sequence
    std::int64_t trial_left_ = 1;
    bool pays_ = false;
};

}  // namespace outrider::budget
