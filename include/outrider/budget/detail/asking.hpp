// Whether a drafter is asked in a round, and of how many sequences.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include <outrider/budget/detail/draft_cost.hpp>
#include <outrider/budget/detail/exploration.hpp>
#include <outrider/budget/detail/pass_cost.hpp>

namespace outrider::budget {

/// What a round cost and gained, told to the budget after it.
struct RoundReport {
    std::size_t sequences = 0;
    std::int64_t drafted = 0;   ///< nodes below the roots, all sequences together
    std::int64_t accepted = 0;  ///< of these, kept
    double draft_seconds = 0;
    double verify_seconds = 0;  ///< verify and commit
};

/// A drafter is asked while what verifying its nodes is expected to gain exceeds what it costs: steady calls, the drag
/// on the pass after it, and its usual catching up. All by what rounds like this one take, not by what this one took:
/// on a machine that does other work too, a single round says little. Where it does not pay it is tried again
/// (Exploration). A batch is tried with an eighth of its sequences, doubled while that pays.
class Asking {
public:
    /// `always`: the drafter leaves out by itself what does not pay, and is asked in every round.
    explicit Asking(bool always = false) : always_(always) {}

    /// Indices of the sequences to draft for, ascending; `owed`: for each, the tokens that the drafter has not seen.
    /// None with more than `most` of them.
    [[nodiscard]] std::vector<std::size_t> ask(std::span<const std::int64_t> owed, const PassCost& cost,
                                               std::int64_t most = std::numeric_limits<std::int64_t>::max()) {
        const auto sequences = static_cast<std::int64_t>(owed.size());
        asked_now_ = owed_now_ = 0;
        if (sequences == 0) return {};
        if (asked_ == 0 || !exploration_.open() || !draft_cost_.known()) asked_ = few(sequences, cost);
        std::vector<std::size_t> asked(owed.size());
        std::iota(asked.begin(), asked.end(), std::size_t{0});
        if (!always_) {  // those first that the drafter need not catch up with
            std::stable_sort(asked.begin(), asked.end(), [&](auto a, auto b) { return owed[a] < owed[b]; });
            asked.resize(static_cast<std::size_t>(std::min(asked_, sequences)));
        }
        std::erase_if(asked, [&](std::size_t i) { return owed[i] > most; });
        if (asked.empty()) return {};
        for (const std::size_t i : asked) owed_now_ += owed[i];
        const auto count = static_cast<std::int64_t>(asked.size());
        const double plain = std::max(cost(sequences), 1e-12);
        const double late = draft_cost_.catch_up(count, owed_now_) / plain;
        if (!always_ && !exploration_.wants(trial_price(count, sequences, plain, cost), late)) return {};
        std::sort(asked.begin(), asked.end());
        asked_now_ = count;
        return asked;
    }

    /// The round is over. `value`, `hope`: see NodeChoice. `usual`: seconds that such a pass usually takes.
    void learn(const RoundReport& report, double value, double hope, const PassCost& cost) {
        const auto sequences = static_cast<std::int64_t>(report.sequences);
        const double plain = cost(sequences), rate = double(sequences) / plain;
        exploration_.pass(double(sequences + report.accepted) / double(sequences));
        if (asked_now_ == 0) return;
        const double late = draft_cost_.catch_up(asked_now_, owed_now_);
        draft_cost_.learn(asked_now_, owed_now_, report.draft_seconds);
        const double asked = double(asked_now_), draft = costs(asked_now_, cost);
        tokens_ = tokens_ * kFade + double(sequences + report.accepted);
        plain_tokens_ = plain_tokens_ * kFade + rate * (draft + cost(sequences + report.drafted));
        value_ = value_ * kFade + value, hope_ = hope_ * kFade + hope, valued_ = valued_ * kFade + asked,
        counted_ = counted_ * kFade + 1;
        const double price = rate * draft;  // tokens that plain decoding makes meanwhile
        const bool losing = counted_ > kLongCounted && gain() < kLosing;
        const double worth = value_ / valued_ * asked;
        const bool pays = !losing && (worth > price || price < kCheap * double(sequences));
        if (pays && counted_ > kGrow && gain() > 1)
            asked_ = std::min(2 * std::min(asked_, sequences), std::max(asked_, sequences));
        if (always_) return;
        Verdict verdict = pays ? Verdict::pays : Verdict::fails;
        if (!pays && 2 * worth > price && gain() > kDoubtful) verdict = Verdict::doubtful;
        if (!pays && draft_cost_.known() && 1.5 * hope_ / valued_ * asked < price) verdict = Verdict::hopeless;
        // What was really kept: what a drafter promises must not pay for finding out that it promises too much.
        exploration_.asked({double(report.accepted), rate * (cost(sequences + report.drafted) - plain) + price,
                            rate * late, double(sequences)},
                           verdict);
        if (!exploration_.open()) tokens_ = plain_tokens_ = counted_ = 0, value_ *= 0.5, hope_ *= 0.5, valued_ *= 0.5;
    }

    /// Seconds of drafting that a pass of this round follows, a slow moment left out.
    [[nodiscard]] double usual(double draft_seconds) const {
        if (asked_now_ == 0) return 0;
        return draft_cost_.known() ? std::min(draft_seconds, draft_cost_.most(asked_now_)) : 0.0;
    }

    /// Estimated speed of drafting rounds over plain ones; 1 before anything is known.
    [[nodiscard]] double gain() const { return plain_tokens_ > 0 ? tokens_ / plain_tokens_ : 1.0; }
    [[nodiscard]] bool open() const noexcept { return always_ || exploration_.open(); }
    [[nodiscard]] std::int64_t asked() const noexcept { return asked_now_; }
    /// Seconds of a steady call for so many sequences.
    [[nodiscard]] double steady(std::int64_t sequences) const { return draft_cost_.steady(sequences); }

private:
    static constexpr double kFade = 0.97;                  ///< weight of the past from one drafting round to the next
    static constexpr double kLongCounted = 24, kGrow = 4;  ///< rounds
    static constexpr double kLosing = 0.98, kDoubtful = 0.75;  ///< speed over plain decoding
    static constexpr double kCheap = 0.004;  ///< a drafter that costs this part of a round is always asked

    /// A trial's sequences: an eighth, and no more than half a pass pays for; one while what the drafter costs is not
    /// known.
    [[nodiscard]] std::int64_t few(std::int64_t sequences, const PassCost& cost) const {
        if (!draft_cost_.known()) return 1;
        const double affordable = 0.5 * cost(sequences) / std::max(costs(1, cost), 1e-9);
        return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::min(affordable, 1e6)), 1,
                                        std::max<std::int64_t>(sequences / 8, 1));
    }
    [[nodiscard]] double costs(std::int64_t sequences, const PassCost& cost) const {
        return (1 + cost.drag()) * draft_cost_.steady(sequences) + draft_cost_.usual_catch_up();
    }

    /// Plain rounds that a trial is expected to lose: what the drafter was worth when last asked counts half.
    [[nodiscard]] double trial_price(std::int64_t asked, std::int64_t sequences, double plain,
                                     const PassCost& cost) const {
        const double worth = valued_ > 0 ? 0.5 * value_ / valued_ * double(asked) / double(sequences) : 0.0;
        const double net = std::max(0.0, costs(asked, cost) / plain - worth);
        return Exploration::kTrial * net;
    }

    bool always_;
    DraftCost draft_cost_;
    Exploration exploration_;
    double tokens_ = 0, plain_tokens_ = 0, counted_ = 0;  ///< fading: emitted, what plain rounds would have, rounds
    double value_ = 0, hope_ = 0, valued_ = 0;            ///< fading: tokens expected to be gained, of so many drafts
    std::int64_t asked_ = 0, asked_now_ = 0, owed_now_ = 0;
};

}  // namespace outrider::budget
