// Bodies of prompt_intake.hpp.
#pragma once

#include <outrider/decode/detail/prompt_intake.hpp>

#include <algorithm>

#include <outrider/core/error.hpp>

#include <outrider/core/detail/bodies.hpp>

namespace outrider {

OUTRIDER_INLINE void PromptIntake::share(std::int64_t rows) {
    const std::size_t n = entries_.size();
    first_ = n == 0 ? 0 : (first_ + 1) % n;
    for (bool any = true; any && rows > 0;) {
        const auto wanting = std::ranges::count_if(entries_, [](const Entry& entry) { return entry.left() > 0; });
        const std::int64_t quota = std::max<std::int64_t>(1, rows / std::max<std::int64_t>(wanting, 1));
        any = false;
        for (std::size_t i = 0; i < n; ++i) {
            Entry& entry = entries_[(first_ + i) % n];
            const std::int64_t take = std::min({entry.left(), quota, rows});
            if (take <= 0) continue;
            entry.taking += take, rows -= take;
            any = true;
        }
    }
}

// Only earlier entries are waited for, so that no two wait for each other.
OUTRIDER_INLINE bool PromptIntake::awaits_another(const Entry& entry) const {
    constexpr std::ptrdiff_t kWorthWaiting = 32;  // tokens: about a pass
    const std::span<const TokenId> own = entry.session->prompt();
    for (const Entry& other : entries_) {
        if (&other == &entry) return false;
        if (other.session->ended()) continue;
        const std::span<const TokenId> its = other.session->prompt();
        const auto common = std::ranges::mismatch(own, its).in1 - own.begin();
        const std::ptrdiff_t brings = std::min(common, std::ssize(its) - 1);
        if (brings >= kWorthWaiting && brings > other.done) return true;
    }
    return false;
}

OUTRIDER_INLINE void PromptIntake::had(Entry& entry, SequenceFeedback told) {
    require(told.sequence == entry.session->id() && told.committed <= entry.session->to_prefill() &&
                std::ssize(told.tokens) == told.committed,
            "Verifier: resume of sequence {} says that {} tokens of {} are committed, and names {}",
            entry.session->id(), told.committed, entry.session->to_prefill(), told.tokens.size());
    entry.done = told.committed;
    entry.session->stats().resumed = told.committed;
    entry.told.add(std::move(told));
}

OUTRIDER_INLINE std::vector<Prefill> PromptIntake::pieces(std::int64_t rows, const FeatureRequest& features) {
    for (Entry& entry : entries_) entry.taking = 0;
    share(rows);
    std::vector<Prefill> pieces;
    for (Entry& entry : entries_) {
        entry.stepping = entry.taking > 0 || (!entry.held && entry.session->to_prefill() == entry.done);
        if (entry.stepping) pieces.push_back(entry.session->prefill(features, entry.done, entry.taking));
    }
    return pieces;
}

OUTRIDER_INLINE void PromptIntake::took(Feedback told, double seconds) {
    std::vector<Entry*> stepping;
    std::int64_t rows = 0;
    for (Entry& entry : entries_)
        if (entry.stepping) stepping.push_back(&entry), rows += entry.taking;
    require(told.size() == stepping.size(), "Verifier: feedback of {} sequences, expected {}", told.size(),
            stepping.size());
    for (std::size_t i = 0; i < told.size(); ++i)
        require(told[i].sequence == stepping[i]->session->id(), "Verifier: feedback {} is of sequence {}, expected {}",
                i, told[i].sequence, stepping[i]->session->id());
    for (std::size_t i = 0; i < told.size(); ++i) {
        Entry& entry = *stepping[i];
        const double share = rows > 0 ? double(entry.taking) / double(rows) : 1.0 / double(stepping.size());
        entry.session->stats().seconds.prefill += seconds * share;
        entry.done += std::exchange(entry.taking, 0);
        entry.told.add(std::move(told[i]));
        entry.stepping = false;
        entry.taken = entry.left() == 0;
    }
}

OUTRIDER_INLINE Feedback PromptIntake::beyond(std::int64_t bound, std::int64_t most) {
    const auto late = [&](const Entry& entry) { return entry.told.tokens() > bound && !entry.session->ended(); };
    const std::int64_t share = share_of(most, std::ranges::count_if(entries_, late));
    Feedback told;
    for (Entry& entry : entries_)
        if (late(entry)) told.push_back(entry.told.take(share));
    return told;
}

OUTRIDER_INLINE Session* PromptIntake::find(SequenceId id) {
    const auto it = std::ranges::find_if(entries_, [id](const Entry& entry) { return entry.session->id() == id; });
    return it == entries_.end() ? nullptr : it->session.get();
}

}  // namespace outrider
